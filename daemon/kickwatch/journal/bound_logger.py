"""The logger behind `logger()`: it accepts any key and any value, and never raises.

If a processor, renderer or sink raises, the record is written in the plainest form, with the key `log_error`.
structlog's own loggers pass such an error on to the caller, and cannot take fields named `event` or `self`.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from kickwatch.journal.plain import text

# Goes up when a key of events.schema.json changes its meaning or is removed; not for new keys and events.
EVENT_SCHEMA = 1
# syslog priorities (syslog(3)) by structlog's level names.
PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
# Keys that the log itself adds to each record. A field with one of these names gets a _ appended.
RESERVED = frozenset({"event", "level", "priority", "schema", "timestamp", "suppressed", "lost", "log_error"})


class Sink(Protocol):
    """Where records are written."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record in the usual form."""

    def write_plain(self, record: Mapping[str, Any]) -> None:
        """Write a record with as little work as possible, after the usual form has failed."""


class BoundLogger(structlog.BoundLoggerBase):
    """One method per level. None of them raises."""

    _logger: Sink

    def debug(self, event: str, /, **fields: Any) -> None:
        """Priority 7."""
        self._log("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Priority 6."""
        self._log("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Priority 4."""
        self._log("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Priority 3."""
        self._log("error", event, fields)

    def critical(self, event: str, /, **fields: Any) -> None:
        """Priority 2."""
        self._log("critical", event, fields)

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        fields = _without_reserved(fields)
        try:
            _, record = self._process_event(level, event, fields)
            self._logger.write(record)
        except structlog.DropEvent:
            return
        except Exception as error:  # noqa: BLE001 -- a failure of the log must not end the caller
            with suppress(Exception):  # the stream is broken: there is nowhere left to report it
                self._logger.write_plain(_plainest(level, event, fields, error))


def _without_reserved(fields: dict[str, Any]) -> dict[str, Any]:
    if RESERVED.isdisjoint(fields):
        return fields
    renamed = {key: value for key, value in fields.items() if key not in RESERVED}
    for key in RESERVED.intersection(fields):
        name = f"{key}_"
        while name in renamed:
            name += "_"
        renamed[name] = fields[key]
    return renamed


def _plainest(level: str, event: str, fields: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    return {
        "schema": EVENT_SCHEMA,
        **fields,
        "event": event,
        "level": level,
        "priority": PRIORITIES[level],
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "log_error": f"{type(error).__name__}: {text(error)}",
    }
