"""A log record before it is written."""

from dataclasses import dataclass
from typing import Any

from kickwatch.journal.journal import Event, logger


@dataclass(frozen=True)
class Alert:
    """A log record: its level, its event, its fields."""

    level: str
    event: Event
    fields: dict[str, Any]


def log(alert: Alert) -> None:
    """Write the record to the log."""
    getattr(logger(), alert.level)(alert.event, **alert.fields)
