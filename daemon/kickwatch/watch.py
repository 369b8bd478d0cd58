"""What the daemon remembers between trials, and what it says of each: evidence, alerts, the control, the notes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from kickwatch.alert.changes import alerts
from kickwatch.alert.journal import Event, logger
from kickwatch.detect.state import Outcome
from kickwatch.detect.streams import Condition
from kickwatch.detect.verdict import MIN_CONTAINERS
from kickwatch.evidence import Evidence
from kickwatch.eyes import Eyes
from kickwatch.ledger import counted, creation_broadcasts
from kickwatch.model import Trial, Verdict

_FAILURES_TOLD = 3
BLIND, CONTENDED = "unknown", "contended"


@dataclass
class Watch:
    """Evidence, the newest trials, what was said."""

    eyes: Eyes
    evidence: Evidence
    recent: list[Trial] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    blind: bool = False
    controlled_at: float = 0.0

    @property
    def condition(self) -> str:
        """What the daemon believes: `quiet`, `broadcasting`, `contended` or `unknown`."""
        state = self.evidence.state
        if Condition.BROADCASTING in state.alerted:
            return Verdict.BROADCASTING.value
        if self.blind or state.verdict is Verdict.UNKNOWN:
            return BLIND
        return CONTENDED if Condition.CONTENDED in state.alerted else state.verdict.value

    async def control_if_due(self, period_s: float) -> bool:
        """Repeat the positive control once per period, between windows. True when it was."""
        if asyncio.get_running_loop().time() - self.controlled_at < period_s:
            return False
        await self.eyes.prove()
        self.controlled()
        return True

    def controlled(self) -> None:
        """A control that fails is an alert; so is the first one that passes again. Nothing is said twice."""
        self.controlled_at = asyncio.get_running_loop().time()
        control = self.eyes.control
        if not control.passed and not self.blind:
            logger().error(Event.OBSERVER_BLIND, what=control.detail, cpus=list(control.cpus))
        if control.passed and self.blind:
            logger().info(Event.OBSERVER_SEES, what=control.detail, cpus=list(control.cpus))
        self.blind = not control.passed

    async def take(self, trial: Trial) -> Outcome:
        """Step the evidence by one trial, and say what it changes."""
        outcome = await self.evidence.take(trial)
        if trial.void:
            logger().warning(Event.TRIAL_VOID, trial=trial.trial_id, reason=trial.void)
            return outcome
        self.recent = newest([*self.recent, trial])
        self.note(trial.notes)
        _tell(trial, outcome)
        for alert in alerts(outcome, self.recent):
            getattr(logger(), alert.level)(alert.event, **alert.fields)
        return outcome

    def note(self, notes: Sequence[str]) -> None:
        """What a person should know of the set-up (a knob the kernel ignores, a lost rung): each once."""
        for note in notes:
            if note not in self.said:
                self.said.add(note)
                logger().warning(Event.NOTE, what=note)


def newest(trials: Sequence[Trial]) -> list[Trial]:
    """The newest trials that together have enough containers for the figures of an alert."""
    kept: list[Trial] = []
    containers = 0
    for trial in reversed(trials[-MIN_CONTAINERS:]):  # at most so many: failed ones bring no containers
        if containers >= MIN_CONTAINERS:
            break
        kept.insert(0, trial)
        containers += len(counted(trial))
    return kept


def _tell(trial: Trial, outcome: Outcome) -> None:
    logger().info(
        Event.TRIAL_FINISHED,
        trial=trial.trial_id,
        verdict=outcome.verdict.value,
        reasons=list(outcome.reasons),
        findings=list(outcome.findings),
        containers=len(counted(trial)),
        failures=[container.failure for container in trial.containers if container.failure][:_FAILURES_TOLD],
        failed=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=creation_broadcasts(trial.churn.cells),
        seed=trial.seed,
        order=list(trial.order),
        kmem_accounting=trial.kmem_accounting.value,
    )
