"""The log records for the verdict of `kickwatch trial`. The daemon logs changes of its conditions instead."""

from collections.abc import Sequence

from kickwatch.detect.verdict import Finding, ReasonedVerdict, VerdictReason
from kickwatch.journal.alert import Alert
from kickwatch.journal.journal import Event
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.broadcast import broadcast_fields, contention_fields
from kickwatch.outlets.elsewhere import elsewhere_fields
from kickwatch.outlets.isolation import hit_field


def alerts_of(trials: Sequence[Trial], judgement: ReasonedVerdict) -> list[Alert]:
    """The log records for the verdict over the trials of one run; none for a quiet one without findings."""
    alerts = []
    verdict = {"verdict": judgement.verdict.value}
    if judgement.verdict is Verdict.BROADCASTING:
        elsewhere = VerdictReason.BROADCASTS_ELSEWHERE in judgement.reasons
        if not elsewhere or len(judgement.reasons) > 1:
            fields = broadcast_fields(trials) | hit_field(trials)
            alerts.append(Alert("error", Event.BROADCAST_DETECTED, fields | verdict))
        if elsewhere:
            alerts.append(Alert("warning", Event.ELSEWHERE_DETECTED, elsewhere_fields(trials) | verdict))
    if Finding.SLAB_MUTEX_CONTENTION in judgement.findings:
        alerts.append(Alert("warning", Event.CONTENTION_DETECTED, contention_fields(trials) | verdict))
    return alerts
