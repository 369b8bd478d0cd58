"""From remarks on the set-up to log records. Each kind has its own event, so one can alert on it."""

from kickwatch.journal.alert import Alert
from kickwatch.journal.journal import Event
from kickwatch.journal.remark import Remark, RemarkKind

_EVENTS: dict[RemarkKind, tuple[str, Event]] = {
    RemarkKind.CAPABILITY_LOST: ("warning", Event.CAPABILITY_LOST),
    RemarkKind.RUNTIME_DRIVEN: ("info", Event.RUNTIME_DRIVEN),
    RemarkKind.RUNTIME_INSTEAD: ("warning", Event.RUNTIME_DRIVEN),
    RemarkKind.SECCOMP_MISSING: ("warning", Event.SECCOMP_MISSING),
    RemarkKind.KUBELET_BESIDE: ("warning", Event.KUBELET_BESIDE),
    RemarkKind.WARM_UP_FAILED: ("warning", Event.WARM_UP_FAILED),
    RemarkKind.KNOB_IGNORED: ("warning", Event.KNOB_IGNORED),
    RemarkKind.MEMCG_LINGERS: ("warning", Event.MEMCG_LINGERS),
}


def alert_of(remark: Remark) -> Alert:
    """The log record of a remark."""
    level, event = _EVENTS[remark.kind]
    return Alert(level, event, {"what": remark.text})
