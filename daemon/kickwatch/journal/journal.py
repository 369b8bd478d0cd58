"""The log: structlog records to the journal where systemd connected it, readable on a terminal, JSON lines elsewhere.

A line that reaches the journal begins with `<N>`, the priority that journald reads (sd-daemon(3)); the priority stands
in the object too, so that other collectors have it. Logging never raises, whatever it is given, and never waits long:
whoever reads the log may be gone, or stopped.
"""

import os
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

import structlog

from kickwatch.journal import console, native
from kickwatch.journal.bound_logger import EVENT_SCHEMA, PRIORITIES, RESERVED, BoundLogger, Sink
from kickwatch.journal.limits import Limiter, Rate
from kickwatch.journal.plain import as_json, text
from kickwatch.process.descriptors import wait_writable

__all__ = ["EVENT_SCHEMA", "PRIORITIES", "Event", "configure_logging", "logger", "reaches_journal", "sentence"]

STREAM_WAIT_MS = 100  # how long a line waits for a reader that does not read
_COLUMNS = 100  # of lines for people where no terminal has a width


class Event(StrEnum):
    """Every event name kickwatch logs, each with its MESSAGE_ID. Both are fixed for ever; what varies are keys."""

    message_id: str  # 128 bits in hexadecimal, as `journalctl --new-id128` makes them

    def __new__(cls, name: str, message_id: str) -> "Event":
        """A string that has a MESSAGE_ID."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.message_id = message_id
        return event

    STARTED = "kickwatch.started", "26f2d6318c324c0a80c0cb336c95af5b"
    STOPPED = "kickwatch.stopped", "104685df77a44e1eb1fde3bfae2811e0"
    TRIAL_FINISHED = "kickwatch.trial_finished", "ffba13367fc046489e42a604a38da26b"
    TRIAL_VOID = "kickwatch.trial_void", "f2c12b42e4c94ff6b37f5823edee1d83"
    CONTAINERS_FAILED = "kickwatch.containers_failed", "777fd90efa7e414083284fb74bbcebc1"
    CONTAINERS_RUN = "kickwatch.containers_run", "b8ec46039c1141bda9340de85fdc8128"
    VERDICT_STALE = "kickwatch.verdict_stale", "7d85d644ad1b43319eed2de6305f322c"
    VERDICT_FRESH = "kickwatch.verdict_fresh", "cf05f32de8e44e828190099f721da192"
    TRIAL_FAILED = "kickwatch.trial_failed", "aa4cf34528ee4208b1a3ba4b81eaa4e1"
    BROADCAST_DETECTED = "kickwatch.broadcast_detected", "10792d80760541a0abc7713fc57d1d66"
    BROADCAST_ENDED = "kickwatch.broadcast_ended", "5fa7abfe087b4ed5b447a43cc05412ec"
    CONTENTION_DETECTED = "kickwatch.contention_detected", "3a99717c534940a08bf73c665910af20"
    CONTENTION_ENDED = "kickwatch.contention_ended", "c16d2e714d014764825aacc3f853f5de"
    DESTROY_DETECTED = "kickwatch.destroy_detected", "4d01ab3b330f45cc953e8d2cc1979958"
    DESTROY_ENDED = "kickwatch.destroy_ended", "4557e706b48b46c28f7015c5a3c99a0c"
    EXCESS_DETECTED = "kickwatch.excess_detected", "d7e5cbcd99b446dca1340e910834dd84"
    EXCESS_ENDED = "kickwatch.excess_ended", "0dbb28658b6548539ae3b9c7fcee2819"
    ELSEWHERE_DETECTED = "kickwatch.elsewhere_detected", "89616bfc64d24639a0d6182beab0fa75"
    ELSEWHERE_ENDED = "kickwatch.elsewhere_ended", "a3346609673041bab6d72baa52105336"
    REGRESSION_DETECTED = "kickwatch.regression_detected", "1100301c951e47ecb175599af530d51e"
    REGRESSION_ENDED = "kickwatch.regression_ended", "f952b4df027443088e3282ca64c02c2d"
    EVIDENCE_CHANGED = "kickwatch.evidence_changed", "1924ff012d904806913888dfde15a5c0"
    EVIDENCE_DROPPED = "kickwatch.evidence_dropped", "d4938a5583224b5d920d7d1d9c6dd6d8"
    HISTORY_TROUBLE = "kickwatch.history_trouble", "d1e10947f4bd42ed96547f29c44c9db8"
    HISTORY_RESUMED = "kickwatch.history_resumed", "5645f021ca7fecb56f2dd4727841ecb3"
    OBSERVER_BLIND = "kickwatch.observer_blind", "49f7f65342664a019556f559f7fcedd1"
    OBSERVER_SEES = "kickwatch.observer_sees", "58aa29712a2b424fb7312ea309a2417c"
    CLEAN_UP_FAILED = "kickwatch.clean_up_failed", "76bfcd502e2f4af083f9cb5ae4917024"
    METRICS_UNSERVED = "kickwatch.metrics_unserved", "8352a2bf022f429ebbb4d33186784e34"
    METRICS_SERVED = "kickwatch.metrics_served", "55b149a119564201b05ab5074866f122"
    TEXTFILE_UNWRITTEN = "kickwatch.textfile_unwritten", "29ee3f6db1e04d1085727df6cf395321"
    TEXTFILE_WRITTEN = "kickwatch.textfile_written", "779ca6284f4346f1a47313553e5e2345"
    BUDGET_UNWRITTEN = "kickwatch.budget_unwritten", "abaeb772bc314174b7fd68c2a2c88f02"
    BUDGET_WRITTEN = "kickwatch.budget_written", "81b36045257a486e8626941cd41aca96"
    BUDGET_UNREAD = "kickwatch.budget_unread", "3b5f39162ede4680bc34fb0d03810797"
    CAPABILITIES_KEPT = "kickwatch.capabilities_kept", "d5e0cc3cdcd3469e81832db81e1554fd"
    RUNTIME_DRIVEN = "kickwatch.runtime_driven", "3feef5dfabba4893ab972cfa5d2d9cbd"
    SECCOMP_MISSING = "kickwatch.seccomp_missing", "833b8107ab864df9907c3bea172f11a6"
    WARM_UP_FAILED = "kickwatch.warm_up_failed", "7136969bd2ae4f57a1993ecf7cad2ed2"
    KNOB_IGNORED = "kickwatch.knob_ignored", "99b4399b1e434ce89c0f1bd0654f3e88"
    MEMCG_LINGERS = "kickwatch.memcg_lingers", "8c64d0d00bbc446fbc56bbd4fa2b649c"
    CAPABILITY_LOST = "kickwatch.capability_lost", "051a101d6cab45cd83ae1befacc08737"
    CONFIG_WARNING = "kickwatch.config_warning", "132596b90cac459b9503b08adb0f4e94"
    PAUSED = "kickwatch.paused", "8895976c5a9c4646a2d18c771a1832ca"
    RESUMED = "kickwatch.resumed", "a9c95db4a966402c9ba6cbc48929ba5c"
    DRAINED = "kickwatch.drained", "9adb6d38a2a74298adf6f4061362ce85"
    UNDRAINED = "kickwatch.undrained", "a02d20c4b4e64af1a6aaafc47054e294"
    RELOADED = "kickwatch.reloaded", "135b7b53c3b54822adb7bac1b917dae8"
    FAILED = "kickwatch.failed", "a0ca680212d946bb93c0ee68ee028d77"
    RELOAD_REFUSED = "kickwatch.reload_refused", "9d6e62997d574a149b78d3389ffdfdf1"
    ENGINE_LOST = "kickwatch.engine_lost", "87a825914dbe4529bf2811613e11d8cc"
    ENGINE_FOUND = "kickwatch.engine_found", "90e87d98ed4e45509a9aaa7b79bcf70a"
    ENGINE_UNNAMED = "kickwatch.engine_unnamed", "13b95c8cdcb8cad89707daff832e861c"
    RESTORED = "kickwatch.restored", "b610ec81697f38af3d88d38b8cb5d5da"
    SUMMARY = "kickwatch.summary", "ac88345b97774b54a706436de89c878d"


# Names and MESSAGE_IDs of events that are gone: never to be used again, since alerts may still ask for them.
RETIRED = {"kickwatch.note": "608c76859bbf48ae9ff1a25f5b3ce9ed"}

# How often each may be logged. Trials come at the pace of budget and windows, the rest when something changes.
RATES: dict[str, Rate] = {Event.TRIAL_FINISHED: Rate(burst=120, period_s=5.0)}
RATE = Rate(burst=20, period_s=30.0)
# Conditions: an alert that was dropped would be an alert that never was.
NEVER_DROPPED = frozenset(
    {event for event in Event if event.endswith(("_detected", "_ended"))} | {Event.OBSERVER_BLIND, Event.OBSERVER_SEES}
)


def configure_logging(
    *, form: str = "auto", level: str = "info", stream: TextIO | None = None, journal: Path = native.SOCKET
) -> None:
    """`form` is `console`, `json`, or `auto`: console on a terminal, the journal where `stream` reaches it, else JSON.

    `journal` is journald's socket; where nobody listens there, JSON lines reach the journal through `stream`.
    """
    stream = stream if stream is not None else sys.stderr
    reaches = reaches_journal(stream)
    sink: Sink
    if form == "console" or (form == "auto" and _is_terminal(stream)):
        sink = Console(stream)
    else:
        sink = lines = Lines(stream, prefixed=reaches)
        if form == "auto" and reaches and native.listens(journal):
            sink = Journal(journal, lines)
    structlog.configure(
        processors=[
            _Floor(level),
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
    """The logger every room uses."""
    return structlog.get_logger()


def reaches_journal(stream: TextIO) -> bool:
    """True when `stream` is the one systemd connected to the journal: JOURNAL_STREAM holds its device and inode."""
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


class _Floor:
    """A processor that drops what is less severe than `level`."""

    def __init__(self, level: str) -> None:
        self._lowest = PRIORITIES[level]

    def __call__(self, _: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if PRIORITIES[method] > self._lowest:
            raise structlog.DropEvent
        return event


class Console:
    """Records for people, at a terminal; `log.format = "console"` has them elsewhere, without colours."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` may go away at any time."""
        self._stream = stream

    def write(self, record: Mapping[str, Any]) -> None:
        """What cannot be written is lost: there is nowhere left to report it."""
        plain_terminal = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        colours = _is_terminal(self._stream) and not plain_terminal
        _write(self._stream, console.render(record, _columns(self._stream), colours=colours), STREAM_WAIT_MS)

    def write_plain(self, record: Mapping[str, Any]) -> None:
        """As JSON."""
        _write(self._stream, as_json(record), STREAM_WAIT_MS)


def _columns(stream: TextIO) -> int:
    """Asked for each record: windows are resized."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


class Lines:
    """Records as JSON objects, one a line, to a stream whose reader may stop reading."""

    def __init__(self, stream: TextIO, *, prefixed: bool) -> None:
        """`prefixed` puts `<N>` before each line."""
        self._stream = stream
        self._prefixed = prefixed
        self._lost = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """A line that finds no room is lost, and the next one says how many were."""
        line = as_json({**record, "lost": self._lost} if self._lost else record)
        wait_ms = 0 if self._lost else STREAM_WAIT_MS
        if _write(self._stream, f"<{record['priority']}>{line}" if self._prefixed else line, wait_ms):
            self._lost = 0
        else:
            self._lost += 1

    write_plain = write


class Journal:
    """Records to journald with a field for each key; as lines where it does not take them."""

    def __init__(self, path: Path, instead: Lines) -> None:
        """`path` is journald's socket."""
        self._path = path
        self._instead = instead
        self._refused = False

    def write(self, record: Mapping[str, Any]) -> None:
        """One record. Only the first that is refused waits, so that a stopped journald holds the daemon up once."""
        wait_ms = 0 if self._refused else native.FULL_WAIT_MS
        self._refused = not native.send(self._path, native.encode(fields_of(record)), wait_ms)
        if self._refused:
            self._instead.write(record)

    def write_plain(self, record: Mapping[str, Any]) -> None:
        """As a line, which reaches the journal as well."""
        self._instead.write(record)


def fields_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A record as the fields of the journal: the journal's own names first, then each key as KICKWATCH_<KEY>."""
    fields = [
        ("MESSAGE", sentence(record)),
        ("PRIORITY", str(record["priority"])),
        ("SYSLOG_IDENTIFIER", "kickwatch"),
    ]
    event = record["event"]
    if isinstance(event, Event):
        fields.append(("MESSAGE_ID", event.message_id))
    return fields + native.keys_of(record)


_MOST_KEYS, _MOST_CHARACTERS = 6, 160


def sentence(record: Mapping[str, Any]) -> str:
    """What a person reads: `broadcast detected: 32 x kick_all_cpus_sync per container, sent by a kworker`."""
    name = text(record["event"]).removeprefix("kickwatch.").replace("_", " ")
    for key in ("headline", "explanation", "what"):
        if record.get(key):
            remedy = f": {native.text_of(record['remedy'])}" if record.get("remedy") else ""
            return f"{name}: {native.text_of(record[key])}{remedy}"
    told = [
        f"{key}={_shortened(value)}"
        for key, value in record.items()
        if key not in RESERVED and not isinstance(value, dict) and value not in ("", [], (), None)
    ]
    return f"{name}: {', '.join(told[:_MOST_KEYS])}" if told else name


def _shortened(value: object) -> str:
    whole = "; ".join(map(native.text_of, value)) if isinstance(value, list | tuple) else native.text_of(value)
    return whole if len(whole) <= _MOST_CHARACTERS else f"{whole[:_MOST_CHARACTERS]}..."


def _add_priority(_: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    return {"schema": EVENT_SCHEMA, **event, "priority": PRIORITIES.get(method, 6)}


def _write(stream: TextIO, line: str, wait_ms: int) -> bool:
    """Whether the stream took it. Room is at least a page of a pipe (pipe(7)), and most lines are shorter than that."""
    try:
        if not _has_room(stream, wait_ms):
            return False
        if stream.isatty():  # whose room may be a single byte
            return _write_to_terminal(stream, f"{line}\n", wait_ms)
        written = stream.write(f"{line}\n")
        stream.flush()
    except (OSError, ValueError):  # the reader is gone, the disk is full, the stream is closed
        return False
    return written != 0  # of a stream that raises nothing (see standard_streams)


def _write_to_terminal(stream: TextIO, text: str, wait_ms: int) -> bool:
    """As much as the terminal takes within the time: one that is frozen must not stop the event loop."""
    own = os.open(f"/proc/self/fd/{stream.fileno()}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        left = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
        until = time.monotonic() + wait_ms / 1000.0
        while left:
            try:
                left = left[os.write(own, left) :]
            except BlockingIOError:
                remaining_ms = int((until - time.monotonic()) * 1000.0)
                if remaining_ms <= 0 or not wait_writable(own, remaining_ms):
                    return False
    finally:
        os.close(own)
    return True


def _has_room(stream: TextIO, wait_ms: int) -> bool:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # held in memory
        return True
    return wait_writable(descriptor, wait_ms)
