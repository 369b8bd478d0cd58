"""The journal's native protocol: one record is one datagram of fields to journald's socket.

Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>. A field is `NAME=value\\n`; a value that holds a newline is
`NAME\\n`, its length as 64 bits little-endian, the value and a newline. A record that no datagram can hold goes into a
memory file, which is sealed and passed on.

Each record opens a socket of its own (some microseconds): nothing is left over from before journald restarted.
"""

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from kickwatch.journal.plain import as_json
from kickwatch.process.descriptors import wait_writable

SOCKET = Path("/run/systemd/journal/socket")
PREFIX = "KICKWATCH_"
FULL_WAIT_MS = 50  # how long a record waits for room in journald's queue; the event loop waits with it

_MOST_NAME = 64
_NOT_IN_NAMES = re.compile("[^A-Z0-9_]")
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def field_name(key: str) -> str:
    """`wait_ns` is KICKWATCH_WAIT_NS. Names have A-Z, 0-9 and _, no _ or digit in front, and at most 64 characters."""
    return (PREFIX + _NOT_IN_NAMES.sub("_", key.upper()))[:_MOST_NAME]


def text_of(value: object) -> str:
    """A string as it is, everything else as JSON: `journalctl KICKWATCH_CONTAINERS=23`."""
    return str.__str__(value) if isinstance(value, str) else as_json(value)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """The datagram. Names must be valid; values may hold anything, lone surrogates are escaped."""
    return b"".join(_encode(name.encode("ascii"), value.encode("utf-8", "backslashreplace")) for name, value in fields)


def _encode(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name, struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name, value)


def keys_of(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Every key of a record as a field of ours."""
    return [(field_name(key), text_of(value)) for key, value in record.items()]


def listens(path: Path) -> bool:
    """Whether journald is there, asked by connecting."""
    try:
        _connect(path).close()
    except OSError:
        return False
    return True


def send(path: Path, datagram: bytes, wait_ms: int = FULL_WAIT_MS) -> bool:
    """Whether journald has the record. False where it is not there, or its queue stays full for so long."""
    try:
        with _connect(path) as connection:
            _send(connection, datagram, wait_ms)
    except OSError:
        return False
    return True


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connection.setblocking(False)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _send(connection: socket.socket, datagram: bytes, wait_ms: int) -> None:
    try:
        _insist(connection, wait_ms, datagram)
    except OSError as error:
        if error.errno not in _TOO_LARGE:
            raise
        memory = _sealed(datagram)
        try:
            _insist(connection, wait_ms, b"", memory)
        finally:
            os.close(memory)


def _insist(connection: socket.socket, wait_ms: int, datagram: bytes, *fds: int) -> None:
    """Once more when there is room again. Raises BlockingIOError where there is none."""
    try:
        socket.send_fds(connection, [datagram], fds)
    except BlockingIOError:
        wait_writable(connection, wait_ms)
        socket.send_fds(connection, [datagram], fds)


def _sealed(content: bytes) -> int:
    """A memory file that nobody can change any more: journald maps it, and takes no other."""
    memory = os.memfd_create("kickwatch-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.set_blocking(memory, False)  # for those who watch for blocking calls: writing to memory is none
        left = memoryview(content)
        while left:
            left = left[os.write(memory, left) :]
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(memory)
        raise
    return memory
