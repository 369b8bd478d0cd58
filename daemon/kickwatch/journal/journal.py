"""The log: structlog records, to the journal if systemd connected it, as text on a terminal, as JSON lines elsewhere.

A JSON line that reaches the journal starts with `<N>`, the priority that journald reads (sd-daemon(3)). The object has
the priority as well, for other collectors. Logging never raises, and never waits long: the reader of the log may be
stopped or gone.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import structlog

from kickwatch.journal import console, native
from kickwatch.journal.bound_logger import EVENT_SCHEMA, PRIORITIES, RESERVED, BoundLogger, Sink
from kickwatch.journal.events import NEVER_DROPPED, RATE, RATES, Event
from kickwatch.journal.limits import Limiter
from kickwatch.journal.lines import write_line
from kickwatch.journal.plain import as_json, text

__all__ = ["EVENT_SCHEMA", "PRIORITIES", "Event", "configure_logging", "logger", "reaches_journal", "sentence"]

STREAM_WAIT_MS = 100  # how long a line waits while the reader does not read
_COLUMNS = 100  # line width for people if no terminal gives one


def configure_logging(
    *, form: str = "auto", level: str = "info", stream: TextIO | None = None, journal: Path = native.SOCKET
) -> None:
    """`form` is `console`, `json`, or `auto`: console on a terminal, the journal if `stream` reaches it, else JSON.

    `journal` is journald's socket. If nothing listens on it, JSON lines reach the journal through `stream`.
    """
    stream = stream if stream is not None else sys.stderr
    reaches = reaches_journal(stream)
    sink: Sink
    if form == "console" or (form == "auto" and _is_terminal(stream)):
        sink = Console(stream)
    else:
        sink = lines = JsonLines(stream, prefixed=reaches)
        if form == "auto" and reaches and native.listens(journal):
            sink = Journal(journal, lines)
    structlog.configure(
        processors=[
            _MinimumLevel(level),
            Limiter(RATES, RATE, NEVER_DROPPED, time.monotonic),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_priority,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        wrapper_class=BoundLogger,
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )


def logger() -> Any:
    """The logger of every room."""
    return structlog.get_logger()


def reaches_journal(stream: TextIO) -> bool:
    """True if systemd connected `stream` to the journal: JOURNAL_STREAM has its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class _MinimumLevel:
    """A processor that drops records less severe than `level`."""

    def __init__(self, level: str) -> None:
        self._lowest = PRIORITIES[level]

    def __call__(self, _: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if PRIORITIES[method] > self._lowest:
            raise structlog.DropEvent
        return event


class Console:
    """Records as text for people: at a terminal, or without colours for `log.format = "console"` elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` may be closed at any time."""
        self._stream = stream

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record. If that fails it is lost: there is nowhere left to report it."""
        plain_terminal = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        colours = _is_terminal(self._stream) and not plain_terminal
        write_line(self._stream, console.render(record, _columns(self._stream), colours=colours), STREAM_WAIT_MS)

    def write_plain(self, record: Mapping[str, Any]) -> None:
        """Write a record as JSON."""
        write_line(self._stream, as_json(record), STREAM_WAIT_MS)


def _columns(stream: TextIO) -> int:
    """The terminal's width, read for each record: windows are resized."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


class JsonLines:
    """Records as JSON objects, one per line, to a stream whose reader may stop reading."""

    def __init__(self, stream: TextIO, *, prefixed: bool) -> None:
        """`prefixed`: start each line with `<N>`."""
        self._stream = stream
        self._prefixed = prefixed
        self._lost = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a line. If the stream is full it is lost, and the next line has the number of lost ones."""
        line = as_json({**record, "lost": self._lost} if self._lost else record)
        wait_ms = 0 if self._lost else STREAM_WAIT_MS
        if write_line(self._stream, f"<{record['priority']}>{line}" if self._prefixed else line, wait_ms):
            self._lost = 0
        else:
            self._lost += 1

    write_plain = write


class Journal:
    """Records to journald, with a field for each key; as JSON lines if journald does not accept them."""

    def __init__(self, path: Path, fallback: JsonLines) -> None:
        """`path` is journald's socket."""
        self._path = path
        self._fallback = fallback
        self._refused = False

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record. Only the first refused one waits, so a stopped journald delays the daemon once."""
        wait_ms = 0 if self._refused else native.FULL_WAIT_MS
        self._refused = not native.send(self._path, native.encode(fields_of(record)), wait_ms)
        if self._refused:
            self._fallback.write(record)

    def write_plain(self, record: Mapping[str, Any]) -> None:
        """Write a record as a JSON line, which reaches the journal as well."""
        self._fallback.write(record)


def fields_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A record as journal fields: the journal's own fields first, then each key as KICKWATCH_<KEY>."""
    fields = [
        ("MESSAGE", sentence(record)),
        ("PRIORITY", str(record["priority"])),
        ("SYSLOG_IDENTIFIER", "kickwatch"),
    ]
    event = record["event"]
    if isinstance(event, Event):
        fields.append(("MESSAGE_ID", event.message_id))
    return fields + native.keys_of(record)


_MAX_KEYS, _MAX_CHARACTERS = 6, 160


def sentence(record: Mapping[str, Any]) -> str:
    """The MESSAGE for a person: `broadcast detected: 32 x kick_all_cpus_sync per container, sent by a kworker`."""
    name = text(record["event"]).removeprefix("kickwatch.").replace("_", " ")
    for key in ("headline", "explanation", "what"):
        if record.get(key):
            remedy = f": {native.text_of(record['remedy'])}" if record.get("remedy") else ""
            return f"{name}: {native.text_of(record[key])}{remedy}"
    pairs = [
        f"{key}={_shortened(value)}"
        for key, value in record.items()
        if key not in RESERVED and not isinstance(value, dict) and value not in ("", [], (), None)
    ]
    return f"{name}: {', '.join(pairs[:_MAX_KEYS])}" if pairs else name


def _shortened(value: object) -> str:
    whole = "; ".join(map(native.text_of, value)) if isinstance(value, list | tuple) else native.text_of(value)
    return whole if len(whole) <= _MAX_CHARACTERS else f"{whole[:_MAX_CHARACTERS]}..."


def _add_priority(_: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    return {"schema": EVENT_SCHEMA, **event, "priority": PRIORITIES.get(method, 6)}
