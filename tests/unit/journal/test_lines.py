"""A line to a stream whose reader is stopped: no long wait, and at most one line is lost."""

import os
import socket
import threading
import time

import pytest

from kickwatch.journal.lines import write_line
from slowness import SLOWNESS

WAIT_MS = 50


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_line_longer_than_a_page_does_not_block_on_a_stalled_reader(kind: str) -> None:
    """A pipe that has room for a page is writable, but a longer line waited for the reader, for ever."""
    reading, writing = ends(kind)
    with os.fdopen(writing, "w") as stream:
        began, taken = time.monotonic(), 0
        while write_line(stream, "x" * 10_000, WAIT_MS):
            taken += 1
        assert time.monotonic() - began < (taken + 2) * WAIT_MS / 1e3 * SLOWNESS + 1
        assert taken >= 1
        read = bytearray()
        reader = threading.Thread(target=read_all, args=(reading, read))
        reader.start()
        while not write_line(stream, "after", WAIT_MS):
            time.sleep(0.01)
    reader.join()
    os.close(reading)
    *whole, torn, last = read.decode().splitlines()
    assert last == "after"
    assert {len(line) for line in whole} == {10_000}
    assert len(whole) + (len(torn) == 10_000) == taken


def test_a_line_in_part_is_ended_before_the_next() -> None:
    reading, writing = ends("pipe")
    with os.fdopen(writing, "w") as stream:
        assert not write_line(stream, "y" * (1 << 20), WAIT_MS)
        assert set(os.read(reading, 1 << 20)) == {ord("y")}
        assert write_line(stream, "next", WAIT_MS)
        assert write_line(stream, "one more", WAIT_MS)
    assert os.read(reading, 1 << 20) == b"\nnext\none more\n"
    os.close(reading)


def test_others_who_share_the_stream_still_block() -> None:
    reading, writing = ends("pipe")
    with os.fdopen(writing, "w") as stream:
        assert write_line(stream, "z", WAIT_MS)
        assert os.get_blocking(writing)
    os.close(reading)


def ends(kind: str) -> tuple[int, int]:
    """Descriptors to read and to write."""
    if kind == "pipe":
        return os.pipe()
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def read_all(descriptor: int, into: bytearray) -> None:
    while more := os.read(descriptor, 1 << 16):
        into += more
