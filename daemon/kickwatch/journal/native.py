"""The journal's native protocol: one record is one datagram of fields to journald's socket.

Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>. A field is `NAME=value\\n`. If the value contains a newline, the
field is `NAME\\n`, the length in 64 bits little-endian, the value, and a newline. A record too large for a datagram is
written to a memory file, which is sealed and sent as a descriptor.

Each record opens a new socket (some microseconds), so a restart of journald needs no handling.
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
FULL_WAIT_MS = 50  # how long a record waits for space in journald's queue; the event loop waits too

_MAX_NAME = 64
_NOT_IN_NAMES = re.compile("[^A-Z0-9_]")
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def field_name(key: str) -> str:
    """`wait_ns` is KICKWATCH_WAIT_NS. Names have A-Z, 0-9 and _, a letter first, and at most 64 characters."""
    return (PREFIX + _NOT_IN_NAMES.sub("_", key.upper()))[:_MAX_NAME]


def text_of(value: object) -> str:
    """A string unchanged, everything else as JSON: `journalctl KICKWATCH_CONTAINERS=23`."""
    return str.__str__(value) if isinstance(value, str) else as_json(value)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """The datagram. Names must be valid. Values may be any text; lone surrogates are escaped."""
    return b"".join(_encode(name.encode("ascii"), value.encode("utf-8", "backslashreplace")) for name, value in fields)


def _encode(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name, struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name, value)


def keys_of(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Every key of a record as a KICKWATCH_ field."""
    return [(field_name(key), text_of(value)) for key, value in record.items()]


def listens(path: Path) -> bool:
    """True if journald accepts a connection."""
    try:
        _connect(path).close()
    except OSError:
        return False
    return True


def send(path: Path, datagram: bytes, wait_ms: int = FULL_WAIT_MS) -> bool:
    """True if journald has the record. False if it is not there, or its queue stays full for `wait_ms`."""
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
        _send_when_writable(connection, wait_ms, datagram)
    except OSError as error:
        if error.errno not in _TOO_LARGE:
            raise
        memory = _sealed(datagram)
        try:
            _send_when_writable(connection, wait_ms, b"", memory)
        finally:
            os.close(memory)


def _send_when_writable(connection: socket.socket, wait_ms: int, datagram: bytes, *fds: int) -> None:
    """Send; if the queue is full, wait and try once more. Raises BlockingIOError if it is still full."""
    try:
        socket.send_fds(connection, [datagram], fds)
    except BlockingIOError:
        wait_writable(connection, wait_ms)
        socket.send_fds(connection, [datagram], fds)


def _sealed(content: bytes) -> int:
    """A sealed memory file, which nobody can change any more: journald maps it, and accepts no other."""
    memory = os.memfd_create("kickwatch-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.set_blocking(memory, False)  # writing to memory never blocks: this tells the tests that look for it
        left = memoryview(content)
        while left:
            left = left[os.write(memory, left) :]
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(memory)
        raise
    return memory
