"""The log: structlog records on standard error, readable on a terminal, one JSON object a line elsewhere.

Under systemd each line begins with `<N>`, the priority that journald reads (sd-daemon(3)); the priority stands in the
object too, so that other collectors have it.
"""

import logging
import os
import sys
from enum import StrEnum
from typing import Any, TextIO

import structlog

# syslog priorities (syslog(3)) by structlog's level names.
PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


class Event(StrEnum):
    """Every event name kickwatch logs. Names are constants; what varies are keys."""

    STARTED = "kickwatch.started"
    STOPPED = "kickwatch.stopped"
    TRIAL_FINISHED = "kickwatch.trial_finished"
    TRIAL_VOID = "kickwatch.trial_void"
    TRIAL_FAILED = "kickwatch.trial_failed"
    BROADCAST_DETECTED = "kickwatch.broadcast_detected"
    BROADCAST_ENDED = "kickwatch.broadcast_ended"
    CONTENTION_DETECTED = "kickwatch.contention_detected"
    CONTENTION_ENDED = "kickwatch.contention_ended"
    DESTROY_DETECTED = "kickwatch.destroy_detected"
    DESTROY_ENDED = "kickwatch.destroy_ended"
    EXCESS_DETECTED = "kickwatch.excess_detected"
    EXCESS_ENDED = "kickwatch.excess_ended"
    UNEXPLAINED_DETECTED = "kickwatch.unexplained_detected"
    UNEXPLAINED_ENDED = "kickwatch.unexplained_ended"
    REGRESSION_DETECTED = "kickwatch.regression_detected"
    REGRESSION_ENDED = "kickwatch.regression_ended"
    EVIDENCE_CHANGED = "kickwatch.evidence_changed"
    EVIDENCE_DROPPED = "kickwatch.evidence_dropped"
    HISTORY_TROUBLE = "kickwatch.history_trouble"
    OBSERVER_BLIND = "kickwatch.observer_blind"
    OBSERVER_SEES = "kickwatch.observer_sees"
    CLEAN_UP_FAILED = "kickwatch.clean_up_failed"
    NOTE = "kickwatch.note"
    CAPABILITY_LOST = "kickwatch.capability_lost"
    CONFIG_WARNING = "kickwatch.config_warning"
    PAUSED = "kickwatch.paused"
    RESUMED = "kickwatch.resumed"
    DRAINED = "kickwatch.drained"
    UNDRAINED = "kickwatch.undrained"
    RELOADED = "kickwatch.reloaded"
    RELOAD_REFUSED = "kickwatch.reload_refused"
    ENGINE_LOST = "kickwatch.engine_lost"
    ENGINE_FOUND = "kickwatch.engine_found"
    SUMMARY = "kickwatch.summary"


def configure_logging(*, form: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """`form` is `console`, `json`, or `auto`: console on a terminal, JSON elsewhere."""
    stream = stream if stream is not None else sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_priority,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        processors += [_without_priority, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    else:
        prefix = reaches_journal(stream)
        processors += [structlog.processors.JSONRenderer(), _Prefixed() if prefix else _plain]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
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


def _add_priority(_: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    event["priority"] = PRIORITIES.get(method, 6)
    return event


def _without_priority(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    del event["priority"]
    return event


def _plain(_: object, __: str, line: str) -> str:
    return line


class _Prefixed:
    """Puts `<N>` before the line, for journald."""

    def __call__(self, _: object, method: str, line: str) -> str:
        return f"<{PRIORITIES.get(method, 6)}>{line}"
