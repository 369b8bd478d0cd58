"""Writes a line to a stream without waiting long: its reader, a pipe's or a terminal's, may be stopped.

A writable pipe has room for a page (pipe(7)), but a line may be longer, and a terminal may take a single byte. So both
are written through a descriptor of their own that does not block; the flag would otherwise also change for whoever
shares the stream.
"""

import os
import select
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from kickwatch.process.descriptors import wait_writable

_DESCRIPTORS = "/proc/self/fd"
_torn: set[tuple[int, int]] = set()  # streams, by device and inode, whose last line was written in part


def write_line(stream: TextIO, line: str, wait_ms: int) -> bool:
    """Write it with a line feed, within `wait_ms`; True if the stream took all of it.

    A line that was written in part is ended before the next one, so that a reader loses this one only.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream in memory, or closed
        return _write_buffered(stream, line)
    if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) or stream.isatty()):
        return _write_buffered(stream, line)
    identity = status.st_dev, status.st_ino
    with suppress(OSError, ValueError):  # no reader
        if not wait_writable(stream.fileno(), wait_ms):
            return False
        start = "\n" if identity in _torn else ""
        data = f"{start}{line}\n".encode(stream.encoding or "utf-8", "backslashreplace")
        left = _send(stream, data, wait_ms, is_socket=stat.S_ISSOCK(status.st_mode))
        if not left or left < len(data):  # something of it was written
            (_torn.add if left else _torn.discard)(identity)
        return not left
    return False


def _write_buffered(stream: TextIO, line: str) -> bool:
    try:
        written = stream.write(f"{line}\n")
        stream.flush()
    except (OSError, ValueError):  # a full disk, a closed stream
        return False
    return written != 0  # standard_streams: 0 instead of an error


def _send(stream: TextIO, data: bytes, wait_ms: int, *, is_socket: bool) -> int:
    """Write for at most `wait_ms`; returns how many bytes are left. Raises OSError."""
    stream.flush()
    if is_socket:  # such as journald's
        with socket.socket(fileno=os.dup(stream.fileno())) as duplicate:
            return _write_all(lambda left: duplicate.send(left, socket.MSG_DONTWAIT), stream.fileno(), data, wait_ms)
    path = f"{_DESCRIPTORS}/{stream.fileno()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # /proc is not mounted, or this user may not open it again
        size = 1 if stream.isatty() else select.PIPE_BUF  # for which there is room if it is writable
        return _write_all(lambda left: _write_ready(stream.fileno(), left[:size]), stream.fileno(), data, wait_ms)
    try:
        return _write_all(lambda left: os.write(descriptor, left), descriptor, data, wait_ms)
    finally:
        os.close(descriptor)


def _write_ready(descriptor: int, piece: memoryview) -> int:
    """Write it if there is room now. It may block only if another process takes that room at this moment."""
    if not wait_writable(descriptor, 0):
        raise BlockingIOError
    return os.write(descriptor, piece)


def _write_all(write: Callable[[memoryview], int], descriptor: int, data: bytes, wait_ms: int) -> int:
    left = memoryview(data)
    until = time.monotonic() + wait_ms / 1000.0
    while left:
        try:
            left = left[write(left) :]
        except BlockingIOError:
            remaining_ms = int((until - time.monotonic()) * 1000.0)
            if remaining_ms <= 0 or not wait_writable(descriptor, remaining_ms):
                break
    return len(left)
