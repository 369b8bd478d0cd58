"""A log record that is still to be written."""

from dataclasses import dataclass
from typing import Any

from kickwatch.journal.journal import Event, logger


@dataclass(frozen=True)
class Alert:
    """One log record to write: its level, its name, its fields."""

    level: str
    event: Event
    fields: dict[str, Any]


def log(alert: Alert) -> None:
    """Write it."""
    getattr(logger(), alert.level)(alert.event, **alert.fields)
