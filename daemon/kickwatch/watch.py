"""What the daemon remembers between trials, and what it says of each: evidence, alerts, the control, remarks."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kickwatch.alert.changes import alerts
from kickwatch.alert.condition import log
from kickwatch.alert.journal import Event, logger
from kickwatch.alert.remarks import alert_of
from kickwatch.detect.state import Outcome
from kickwatch.detect.streams import Condition
from kickwatch.detect.verdict import MIN_CONTAINERS
from kickwatch.evidence import Evidence
from kickwatch.eyes import Eyes
from kickwatch.ledger import counted, creation_broadcasts
from kickwatch.model import Trial, Verdict
from kickwatch.remark import Remark

_FAILURES_TOLD = 3
BLIND, CONTENDED = "unknown", "contended"


@dataclass
class Watch:
    """Evidence, the newest trials, what was said."""

    eyes: Eyes
    evidence: Evidence
    recent: list[Trial] = field(default_factory=list)
    said: set[Remark] = field(default_factory=set)
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

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the condition is unknown; empty where it is known."""
        return ()

    @property
    def verdict_age_s(self) -> float | None:
        """Seconds since a trial last established something; None before the first that did."""
        return None

    @property
    def more_containers(self) -> int | None:
        """Silent containers that are missing until `quiet`; None where their number is not known."""
        return None

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
        _tell(trial, outcome, self)
        for alert in alerts(outcome, self.recent):
            getattr(logger(), alert.level)(alert.event, **alert.fields)
        return outcome

    def note(self, remarks: Iterable[Remark]) -> None:
        """Log what a person should know of the set-up (a knob the kernel ignores, a lost rung): each once."""
        for remark in remarks:
            if remark not in self.said:
                self.said.add(remark)
                log(alert_of(remark))


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


def _tell(trial: Trial, outcome: Outcome, watch: Watch) -> None:
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
        verdict_age_s=watch.verdict_age_s,
        more_containers=watch.more_containers,
    )
