"""The journal's native protocol, to a real datagram socket: what a reader that knows the protocol gets back."""

import fcntl
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.journal import native
from native_fields import parsed

VALID_NAME = re.compile("[A-Z][A-Z0-9_]{0,63}")
ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Inbox:
    """Stands where journald listens: a datagram socket of the same kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def receive(self) -> tuple[bytes, list[int]]:
        """The next datagram and the files passed with it."""
        content, fds, _, _ = socket.recv_fds(self._socket, 1 << 20, 4)
        return content, fds

    def close(self) -> None:
        """The path stays, as after a crash."""
        self._socket.close()


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    one = Inbox(tmp_path / "socket")
    yield one
    one.close()


def test_a_record_is_one_datagram_of_fields(inbox: Inbox) -> None:
    fields = native.keys_of({"verdict": "quiet", "containers": 23, "reasons": ["a", "b"], "deep": {"x": None}})
    assert native.send(inbox.path, native.encode([("MESSAGE", "a\nb"), *fields]))
    content, fds = inbox.receive()
    assert not fds
    assert parsed(content) == [
        ("MESSAGE", b"a\nb"),
        ("KICKWATCH_VERDICT", b"quiet"),
        ("KICKWATCH_CONTAINERS", b"23"),
        ("KICKWATCH_REASONS", b'["a", "b"]'),
        ("KICKWATCH_DEEP", b'{"x": null}'),
    ]


def test_the_text_form_is_bare_and_the_binary_form_has_its_length() -> None:
    assert native.encode([("A", "x=y"), ("B", "x\ny")]) == b"A=x=y\nB\n\x03\0\0\0\0\0\0\0x\ny\n"


@given(st.text())
def test_every_key_makes_a_valid_field_name(key: str) -> None:
    name = native.field_name(key)
    assert VALID_NAME.fullmatch(name)
    assert name.startswith("KICKWATCH_")


def test_long_and_strange_keys() -> None:
    assert native.field_name("wait_ns") == "KICKWATCH_WAIT_NS"
    assert native.field_name("é-1") == "KICKWATCH___1"
    assert len(native.field_name("x" * 99)) == 64


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), VALUES, max_size=6))
def test_any_record_comes_back(record: dict[str, Any]) -> None:
    expected = [
        (native.field_name(key), native.text_of(value).encode("utf-8", "backslashreplace"))
        for key, value in record.items()
    ]
    assert parsed(native.encode(native.keys_of(record))) == expected


@given(st.text(alphabet="\n=\0aä\ud800", max_size=30))
def test_newlines_separators_and_lone_surrogates_are_safe(value: str) -> None:
    assert parsed(native.encode([("A", value), ("B", "after")])) == [
        ("A", value.encode("utf-8", "backslashreplace")),
        ("B", b"after"),
    ]


def test_what_json_cannot_say_is_said_somehow() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert "[...]" in native.text_of(circle)
    assert "(1, 2)" in native.text_of({(1, 2): 3})
    assert native.text_of(Path("/a")) == '"/a"'


def test_a_mebibyte_goes_through_a_sealed_memory_file(inbox: Inbox) -> None:
    blob = "line\n" * (2**20 // 5)
    assert native.send(inbox.path, native.encode(native.keys_of({"blob": blob, "after": 1})))
    content, (memory,) = inbox.receive()
    try:
        assert content == b""
        assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & ALL_SEALS == ALL_SEALS
        held = os.pread(memory, 1 << 24, 0)
        with pytest.raises(PermissionError):
            os.pwrite(memory, b"x", 0)
    finally:
        os.close(memory)
    assert parsed(held) == [("KICKWATCH_BLOB", blob.encode()), ("KICKWATCH_AFTER", b"1")]


def test_no_descriptor_is_left_behind(inbox: Inbox, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    native.send(inbox.path, b"A=1\n")
    native.send(inbox.path, b"A=" + b"x" * 2**20 + b"\n")
    native.send(tmp_path / "nobody", b"A=1\n")
    assert native.listens(inbox.path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_journal_that_is_gone_takes_nothing_and_one_that_is_back_does(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert not native.listens(path)
    assert not native.send(path, b"A=1\n")
    first = Inbox(path)
    assert native.send(path, b"A=2\n")
    first.close()
    assert not native.listens(path)
    assert not native.send(path, b"A=3\n")
    path.unlink()
    second = Inbox(path)
    assert native.send(path, b"A=4\n")
    assert second.receive() == (b"A=4\n", [])
    second.close()


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    assert not native.send(tmp_path / ("x" * 200), b"A=1\n")


def test_a_journal_that_stops_reading_holds_nobody_up(inbox: Inbox) -> None:
    taken = 0
    while native.send(inbox.path, b"A=1\n"):
        taken += 1
        assert taken < 100_000
    began = time.monotonic()
    assert not native.send(inbox.path, b"A=" + b"x" * 2**20 + b"\n")
    assert native.FULL_WAIT_MS / 1e3 * 0.9 <= time.monotonic() - began < 20
    inbox.receive()
    assert native.send(inbox.path, b"A=2\n")


def test_without_descriptors_nothing_is_sent_and_nothing_raised(inbox: Inbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        sent = native.send(inbox.path, b"A=1\n")
        listens = native.listens(inbox.path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not sent
    assert not listens
    assert native.send(inbox.path, b"A=1\n")


async def test_nothing_blocks_in_the_event_loop(inbox: Inbox) -> None:
    assert native.listens(inbox.path)
    assert native.send(inbox.path, b"A=1\n")
    assert native.send(inbox.path, b"A=" + b"x" * 2**20 + b"\n")
