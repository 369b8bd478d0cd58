"""What the daemon believes, and the events a change of belief makes; nothing is said twice while nothing changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kickwatch.alert.broadcast import broadcast_fields, contention_fields, identity
from kickwatch.alert.journal import Event
from kickwatch.detect.verdict import Finding, Judgement
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
            return [Alert("info", Event.BROADCAST_ENDED, identity(trials))]
        return []

    def _contention(self, trials: Sequence[Trial], judgement: Judgement) -> list[Alert]:
        contended = Finding.SLAB_MUTEX_CONTENTION in judgement.findings
        if contended == self.contended or (not contended and judgement.verdict is Verdict.UNKNOWN):
            return []
        self.contended = contended
        event = Event.CONTENTION_DETECTED if contended else Event.CONTENTION_ENDED
        return [Alert("warning", event, contention_fields(trials))]
