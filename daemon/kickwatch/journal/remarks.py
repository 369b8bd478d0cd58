"""From remarks on the set-up to log records: each kind has an event of its own, so that one can alert on it."""

from kickwatch.journal.alert import Alert
from kickwatch.journal.journal import Event
from kickwatch.journal.remark import Remark, RemarkKind

_EVENTS: dict[RemarkKind, tuple[str, Event]] = {
    RemarkKind.CAPABILITY_LOST: ("warning", Event.CAPABILITY_LOST),
    RemarkKind.RUNTIME_DRIVEN: ("info", Event.RUNTIME_DRIVEN),
    RemarkKind.RUNTIME_INSTEAD: ("warning", Event.RUNTIME_DRIVEN),
    RemarkKind.SECCOMP_MISSING: ("warning", Event.SECCOMP_MISSING),
    RemarkKind.WARM_UP_FAILED: ("warning", Event.WARM_UP_FAILED),
    RemarkKind.KNOB_IGNORED: ("warning", Event.KNOB_IGNORED),
    RemarkKind.MEMCG_LINGERS: ("warning", Event.MEMCG_LINGERS),
}


def alert_of(remark: Remark) -> Alert:
    """Its log record."""
    level, event = _EVENTS[remark.kind]
    return Alert(level, event, {"what": remark.text})
