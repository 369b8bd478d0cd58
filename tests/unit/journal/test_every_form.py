"""Every event of the schema in every form in which it can go out, with the longest, oddest values: nothing is lost."""

import fcntl
import io
import json
import os
import re
import socket
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog
from jsonschema import Draft202012Validator

from kickwatch.journal import journal
from kickwatch.journal.bound_logger import PRIORITIES
from kickwatch.journal.console import printable
from kickwatch.journal.journal import Event, configure_logging, logger
from kickwatch.journal.native import field_name, text_of
from native_fields import parsed
from schema_values import KINDS, LONG, SCHEMA, fields_of, leaves, level_of

VALIDATOR = Draft202012Validator(SCHEMA)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EVERY = pytest.mark.parametrize("event", list(Event))


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def short(event: Event) -> str:
    return event.removeprefix("kickwatch.")


def log(event: Event, kind: str) -> dict[str, Any]:
    """Log it; what every form has to hold, without the time."""
    fields, level = fields_of(short(event), kind), level_of(short(event))
    getattr(logger(), level)(event, **fields)
    return {**fields, "event": event.value, "level": level, "priority": PRIORITIES[level], "schema": 1}


@EVERY
def test_as_json_lines(event: Event) -> None:
    for kind in KINDS:
        stream = io.StringIO()
        configure_logging(form="json", stream=stream)
        expected = log(event, kind)
        assert_record(stream.getvalue(), expected)


def assert_record(line: str, expected: dict[str, Any]) -> None:
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    record = json.loads(line, parse_constant=pytest.fail)
    assert [error.message for error in VALIDATOR.iter_errors(record)] == []
    assert record.pop("timestamp")
    assert record == expected


@EVERY
def test_as_json_lines_for_the_journal(event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        reaches_the_journal(stream, monkeypatch)
        for kind in KINDS:
            configure_logging(stream=stream, journal=tmp_path / "nobody")
            expected = log(event, kind)
            stream.seek(0)
            line = stream.read()
            assert line.startswith(f"<{expected['priority']}>")
            assert_record(line[3:], expected)
            stream.seek(0)
            stream.truncate()


def reaches_the_journal(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")


@EVERY
def test_in_the_native_protocol(event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald,
        (tmp_path / "stderr").open("w+", encoding="utf-8") as stream,
    ):
        journald.bind(str(tmp_path / "socket"))
        journald.settimeout(5)
        reaches_the_journal(stream, monkeypatch)
        for kind in KINDS:
            configure_logging(stream=stream, journal=tmp_path / "socket")
            expected = log(event, kind)
            fields = parsed(received(journald))
            own = [(name, value) for name, value in fields if name.startswith("KICKWATCH_")]
            assert own.pop()[0] == "KICKWATCH_TIMESTAMP"
            assert sorted(own) == sorted((field_name(key), raw(text_of(one))) for key, one in expected.items())
            others = dict(fields[: len(fields) - len(own) - 1])
            assert others.pop("MESSAGE")
            assert others == {
                "PRIORITY": b"%d" % expected["priority"],
                "SYSLOG_IDENTIFIER": b"kickwatch",
                "MESSAGE_ID": event.message_id.encode(),
            }
        assert stream.tell() == 0


def raw(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def received(journald: socket.socket) -> bytes:
    """The next record, from the datagram or from the memory file that came with it."""
    content, fds, _, _ = socket.recv_fds(journald, 1 << 20, 4)
    if not fds:
        return content
    with os.fdopen(fds[0], "rb") as memory:
        memory.seek(0)
        return memory.read()


@EVERY
def test_for_people_without_a_terminal(event: Event) -> None:
    for kind in KINDS:
        stream = io.StringIO()
        configure_logging(form="console", stream=stream)
        expected = log(event, kind)
        assert "\x1b" not in stream.getvalue()
        assert_nothing_lost(stream.getvalue(), expected)


@pytest.mark.parametrize("columns", [80, 200])
@EVERY
def test_at_a_terminal(event: Event, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(journal, "STREAM_WAIT_MS", 60_000)  # the reader is a thread, which a busy machine may hold up
    for kind in KINDS:
        with terminal(columns) as (stream, seen):
            configure_logging(stream=stream)
            expected = log(event, kind)
        text = seen()
        assert COLOUR.search(text)
        assert_nothing_lost(COLOUR.sub("", text), expected)


@contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, Any]]:
    """A pseudo-terminal, and what it has shown once it is closed."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # EIO: closed at the other end
            return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8", errors="strict") as stream:
        yield stream, lambda: b"".join(parts).decode("utf-8")
    reader.join()
    os.close(ours)


def assert_nothing_lost(text: str, expected: dict[str, Any]) -> None:
    """Every key and every value is there, wrapped or in quotes; nothing is that moves the cursor."""
    assert all(one.isprintable() for one in text.replace("\n", ""))
    words = " ".join(text.split())
    assert expected["event"] in words
    assert f"[{expected['level']:<8}]" in text
    for key, value in expected.items():
        if key in {"event", "level", "schema", "priority"}:
            continue
        unnamed = {"headline", "explanation", "what", "meaning"}  # the first of them stands without its name
        assert key in words or key in unnamed, key
        for leaf in leaves(value):
            assert any(all(part in words for part in way) for way in ways(leaf)), (key, leaf)


def ways(leaf: object) -> list[list[str]]:
    """How a value may be shown, each as parts that must all be there."""
    if not isinstance(leaf, str):
        return [[text_of(leaf)]]
    lines = [" ".join(printable(line).split()) for line in leaf.split("\n")]
    quoted = " ".join(printable('"' + leaf.replace("\\", "\\\\").replace('"', '\\"') + '"').split())
    return [lines, [quoted]]


def test_the_values_are_as_long_and_odd_as_they_should_be() -> None:
    longest = fields_of("broadcast_detected", "longest")
    assert longest["headline"] == LONG
    assert len(longest["stack"]) == 64
    assert any("\x1b" in str(value) for kind in KINDS for value in fields_of("broadcast_detected", kind).values())
    assert "lone \ud800 surrogate" in list(leaves(fields_of("summary", "oddest 5")))
    assert fields_of("stopped", "longest") == {}
