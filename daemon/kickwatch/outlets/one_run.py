"""The log records of one run's verdict (`kickwatch trial`); the daemon's come from the changes of its conditions."""

from collections.abc import Sequence

from kickwatch.detect.verdict import Finding, ReasonedVerdict
from kickwatch.journal.alert import Alert
from kickwatch.journal.journal import Event
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.broadcast import broadcast_fields, contention_fields


def alerts_of(trials: Sequence[Trial], judgement: ReasonedVerdict) -> list[Alert]:
    """What a verdict over the trials of one run has to say to the log; a quiet one says nothing."""
    told = []
    verdict = {"verdict": judgement.verdict.value}
    if judgement.verdict is Verdict.BROADCASTING:
        told.append(Alert("error", Event.BROADCAST_DETECTED, broadcast_fields(trials) | verdict))
    if Finding.SLAB_MUTEX_CONTENTION in judgement.findings:
        told.append(Alert("warning", Event.CONTENTION_DETECTED, contention_fields(trials) | verdict))
    return told
