"""The log records of one run's verdict (`kickwatch trial`); the daemon's come from the changes of its conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kickwatch.alert.broadcast import broadcast_fields, contention_fields
from kickwatch.alert.journal import Event, logger
from kickwatch.detect.verdict import Finding, Judgement
from kickwatch.model import Trial, Verdict


@dataclass(frozen=True)
class Alert:
    """One log record to write: its level, its name, its fields."""

    level: str
    event: Event
    fields: dict[str, Any]


def log(alert: Alert) -> None:
    """Write it."""
    getattr(logger(), alert.level)(alert.event, **alert.fields)


def alerts_of(trials: Sequence[Trial], judgement: Judgement) -> list[Alert]:
    """What a verdict over the trials of one run has to say to the log; a quiet one says nothing."""
    told = []
    verdict = {"verdict": judgement.verdict.value}
    if judgement.verdict is Verdict.BROADCASTING:
        told.append(Alert("error", Event.BROADCAST_DETECTED, broadcast_fields(trials) | verdict))
    if Finding.SLAB_MUTEX_CONTENTION in judgement.findings:
        told.append(Alert("warning", Event.CONTENTION_DETECTED, contention_fields(trials) | verdict))
    return told
