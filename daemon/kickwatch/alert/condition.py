"""What the daemon believes, and the events a change of belief makes; nothing is said twice while nothing changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kickwatch.alert.broadcast import broadcast_fields, holders
from kickwatch.alert.journal import Event
from kickwatch.detect.verdict import Finding, Judgement
from kickwatch.ledger import total_waits
from kickwatch.model import Trial, Verdict


@dataclass(frozen=True)
class Alert:
    """One log record to write: its level, its name, its fields."""

    level: str
    event: Event
    fields: dict[str, Any]


@dataclass
class Conditions:
    """Broadcasting and contention, each raised and ended once."""

    broadcasting: bool = False
    contended: bool = False

    def update(self, trials: Sequence[Trial], judgement: Judgement) -> list[Alert]:
        """The alerts that this judgement makes. An `unknown` verdict ends nothing: blindness is no recovery."""
        return [*self._broadcast(trials, judgement), *self._contention(trials, judgement)]

    def _broadcast(self, trials: Sequence[Trial], judgement: Judgement) -> list[Alert]:
        if judgement.verdict is Verdict.BROADCASTING and not self.broadcasting:
            self.broadcasting = True
            return [Alert("error", Event.BROADCAST_DETECTED, broadcast_fields(trials))]
        if judgement.verdict is Verdict.QUIET and self.broadcasting:
            self.broadcasting = False
            return [Alert("info", Event.BROADCAST_ENDED, _identity(trials))]
        return []

    def _contention(self, trials: Sequence[Trial], judgement: Judgement) -> list[Alert]:
        contended = Finding.SLAB_MUTEX_CONTENTION in judgement.findings
        if contended == self.contended or (not contended and judgement.verdict is Verdict.UNKNOWN):
            return []
        self.contended = contended
        waits = [wait for trial in trials for wait in trial.churn.waits]
        count, wait_ns = total_waits(waits)
        fields = _identity(trials) | {
            "slab_mutex_waits": count,
            "slab_mutex_wait_ms": round(wait_ns / 1e6, 3),
            "slab_mutex_longest_ms": round(max((wait.max_wait_ns for wait in waits), default=0) / 1e6, 3),
            "slab_mutex_holders": holders(waits),
        }
        return [Alert("warning", Event.CONTENTION_DETECTED if contended else Event.CONTENTION_ENDED, fields)]


def _identity(trials: Sequence[Trial]) -> dict[str, Any]:
    node = trials[-1].node
    return {"kernel": node.kernel, "engine": node.engine, "trials": [trial.trial_id for trial in trials]}
