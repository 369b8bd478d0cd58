"""From changes of alarms to log records: which event, how severe, with which fields."""

from collections.abc import Sequence
from typing import Any

from kickwatch.detect.state import Change, ChangeKind, TrialOutcome
from kickwatch.journal.alert import Alert
from kickwatch.journal.journal import Event
from kickwatch.model import AlarmKind, Trial
from kickwatch.outlets.broadcast import broadcast_fields, contention_fields, identity
from kickwatch.outlets.elsewhere import elsewhere_fields
from kickwatch.outlets.isolation import hit_field, isolation_fields

# Per alarm: the event that raises it, its level, the event that ends it.
_EVENTS: dict[AlarmKind, tuple[Event, str, Event]] = {
    AlarmKind.BROADCASTING: (Event.BROADCAST_DETECTED, "error", Event.BROADCAST_ENDED),
    AlarmKind.CONTENDED: (Event.CONTENTION_DETECTED, "warning", Event.CONTENTION_ENDED),
    AlarmKind.DESTROYING: (Event.DESTROY_DETECTED, "warning", Event.DESTROY_ENDED),
    AlarmKind.EXCESSIVE: (Event.EXCESS_DETECTED, "warning", Event.EXCESS_ENDED),
    AlarmKind.ELSEWHERE: (Event.ELSEWHERE_DETECTED, "warning", Event.ELSEWHERE_ENDED),
    AlarmKind.ISOLATION: (Event.ISOLATION_BROKEN, "warning", Event.ISOLATION_RESTORED),
    AlarmKind.REGRESSED: (Event.REGRESSION_DETECTED, "warning", Event.REGRESSION_ENDED),
}


def alerts(outcome: TrialOutcome, recent: Sequence[Trial]) -> list[Alert]:
    """The log records for the outcome of one trial. `recent`: the newest trials, for the figures of an alert."""
    records = [_alert(change, outcome, recent) for change in outcome.changes]
    if outcome.restart_reason:
        what = f"evidence starts again: {outcome.restart_reason}"
        records.insert(0, Alert("info", Event.EVIDENCE_DROPPED, {"what": what}))
    return records


def _alert(change: Change, outcome: TrialOutcome, recent: Sequence[Trial]) -> Alert:
    raised, level, ended = _EVENTS[change.alarm]
    fields: dict[str, Any] = {
        "verdict": outcome.verdict.value,
        "condition": change.alarm.value,
        "stream": change.stream,
        "explanation": change.text,
        "evidence": change.evidence,
        "threshold": change.threshold,
        "first_trial": change.first_trial,
        "observations": change.observations,
        "loud": change.hits,
    }
    if change.kind is ChangeKind.RAISED:
        return Alert(level, raised, _figures(change.alarm, recent) | fields)
    if change.kind is ChangeKind.ENDED:
        return Alert("info", ended, identity(recent) | fields)
    return Alert("info", Event.EVIDENCE_CHANGED, {"kind": change.kind.value} | fields)


def _figures(alarm: AlarmKind, recent: Sequence[Trial]) -> dict[str, Any]:
    match alarm:
        case AlarmKind.BROADCASTING:
            return broadcast_fields(recent) | hit_field(recent)
        case AlarmKind.CONTENDED:
            return contention_fields(recent)
        case AlarmKind.ELSEWHERE:
            return elsewhere_fields(recent)
        case AlarmKind.ISOLATION:
            return isolation_fields(recent)
    return identity(recent)
