"""A line to a stream whose reader is stopped: no long wait, and at most one line is lost."""

import os
import socket
import threading
import time
from contextlib import suppress

import pytest

from kickwatch.journal.lines import write_line
from slowness import SLOWNESS

WAIT_MS = 50


@pytest.mark.parametrize("kind", ["pipe", "pipe without /proc", "terminal", "terminal without /proc", "socket"])
def test_a_line_longer_than_a_page_does_not_block_on_a_stalled_reader(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that has room for a page is writable, but a longer line waited for the reader, for ever."""
    if kind.endswith("without /proc"):
        monkeypatch.setattr("kickwatch.journal.lines._DESCRIPTORS", "/nonexistent")
    reading, writing = ends(kind)
    with os.fdopen(writing, "w") as stream:
        assert write_line(stream, "x" * 10_000, 10_000)  # there is room for one, but the kernel or we may get no CPU
        began, taken = time.monotonic(), 1
        while write_line(stream, "x" * 10_000, WAIT_MS):
            taken += 1
        assert time.monotonic() - began < (taken + 2) * WAIT_MS / 1e3 * SLOWNESS + 20
        read = bytearray()
        reader = threading.Thread(target=read_all, args=(reading, read))
        reader.start()
        while not write_line(stream, "after", WAIT_MS):
            time.sleep(0.01)
    reader.join()
    os.close(reading)
    lines = read.decode().splitlines()
    assert lines[-1] == "after"
    assert taken <= lines.count("x" * 10_000) <= taken + 1  # of the last one, its end may be all that is missing
    assert len([line for line in lines if "x" in line]) <= taken + 1


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
    if kind.startswith("pipe"):
        return os.pipe()
    if kind.startswith("terminal"):
        return os.openpty()
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def read_all(descriptor: int, into: bytearray) -> None:
    with suppress(OSError):  # EIO: the other end of a terminal was closed
        while more := os.read(descriptor, 1 << 16):
            into += more
