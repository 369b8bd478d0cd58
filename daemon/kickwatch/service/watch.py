"""What the daemon remembers between trials, and what it reports of each: evidence, alerts, the control, remarks.

The condition is `quiet` only while it is earned: an established silence of this boot, confirmed not too long ago, seen
by observers that passed their control. Everything else is `unknown`, with its reasons.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kickwatch.detect.figures import counted, known_creation_broadcasts
from kickwatch.detect.quiet import FAILED_TRIALS, FRESH_CONTAINERS
from kickwatch.detect.state import TrialOutcome
from kickwatch.detect.verdict import MIN_CONTAINERS, VerdictReason, nearly_all_failed
from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.journal.alert import log
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.remark import Remark
from kickwatch.journal.remarks import alert_of
from kickwatch.model import AlarmKind, Condition, Trial, Verdict
from kickwatch.outlets.changes import alerts
from kickwatch.service.evidence import Evidence
from kickwatch.service.verdict_age import VerdictAge, rounded

_FAILURES_TOLD = 3
DAY_S = 86_400.0


@dataclass
class Watch:
    """Evidence, the newest trials, what was logged. `boot_id`: the present boot's; empty where it does not matter."""

    armed: ArmedObservers
    evidence: Evidence
    max_age_s: float = DAY_S
    boot_id: str = ""
    recent: list[Trial] = field(default_factory=list)
    said: set[Remark] = field(default_factory=set)
    blind: bool = False
    controlled_at: float = 0.0
    age: VerdictAge = field(init=False)
    _failing: bool = False
    _not_run: int = 0  # trials in a row that failed as a whole
    _stale: bool = False

    def __post_init__(self) -> None:
        """The verdict of an earlier daemon is as old as its last trial."""
        self.age = VerdictAge(self.evidence.state.looked_unix_s)

    @property
    def condition(self) -> Condition:
        """What the daemon believes: `quiet`, `broadcasting`, `contended` or `unknown`.

        An alarm outlives a lack of trials: it ends when containers show that its cause is gone.
        """
        alerted = self.evidence.state.alerted
        if self._broadcasting:
            return Condition.BROADCASTING
        if self.reasons:
            return Condition.UNKNOWN
        return Condition.CONTENDED if AlarmKind.CONTENDED in alerted else Condition.QUIET

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the condition is `unknown`; empty where it is known."""
        state = self.evidence.state
        if self._broadcasting:
            return ()
        if self.blind:
            return (VerdictReason.BLIND.value,)
        if self._not_run >= FAILED_TRIALS and not self._other_boot:
            return (VerdictReason.CONTAINERS_FAILED.value,)
        if self._other_boot or not state.quiet.established or state.verdict is not Verdict.QUIET:
            known = () if self._other_boot or state.verdict is Verdict.QUIET else state.reasons
            return known or (VerdictReason.INSUFFICIENT_EVIDENCE.value,)
        return (VerdictReason.STALE.value,) if self.stale else ()

    @property
    def stale(self) -> bool:
        """Whether the verdict was last confirmed too long ago."""
        age_s = self.verdict_age_s
        return age_s is not None and age_s > self.max_age_s

    @property
    def verdict_age_s(self) -> float | None:
        """Seconds since a trial last established something; None before the first that did."""
        return self.age.seconds

    @property
    def more_containers(self) -> int | None:
        """Silent containers that are missing until `quiet`; None where something else is missing."""
        if self.reasons != (VerdictReason.INSUFFICIENT_EVIDENCE.value,):
            return None
        state = self.evidence.state
        fresh = self._other_boot or state.verdict is Verdict.QUIET or not state.trials
        return FRESH_CONTAINERS if fresh else state.more_containers

    @property
    def _broadcasting(self) -> bool:
        """Whether an alarm of this boot holds."""
        return AlarmKind.BROADCASTING in self.evidence.state.alerted and not self._other_boot

    @property
    def _other_boot(self) -> bool:
        """Evidence of another boot proves nothing of this one; the first trial drops it."""
        known = self.evidence.state.boot_id
        return bool(self.boot_id and known and known != self.boot_id)

    def adopt(self, evidence: Evidence, max_age_s: float) -> None:
        """Go on under another configuration."""
        self.evidence, self.max_age_s = evidence, max_age_s

    def note_age(self) -> None:
        """Report once that the verdict has become stale, and once that it is confirmed again."""
        if self.stale and not self._stale:
            what = f"the last trial that established something began {self.verdict_age_s or 0.0:.0f} s ago"
            remedy = "find out what keeps trials away: kickwatch status says what the daemon waits for"
            logger().warning(Event.VERDICT_STALE, what=what, remedy=remedy, verdict_age_s=rounded(self.verdict_age_s))
        if self._stale and not self.stale:
            logger().info(Event.VERDICT_FRESH, condition=self.condition)
        self._stale = self.stale

    async def control_if_due(self, period_s: float) -> bool:
        """Repeat the positive control once per period, between windows. True when it was."""
        if asyncio.get_running_loop().time() - self.controlled_at < period_s:
            return False
        await self.armed.prove()
        self.controlled()
        return True

    def controlled(self) -> None:
        """A control that fails is an alert; so is the first one that passes again. Nothing is said twice."""
        self.controlled_at = asyncio.get_running_loop().time()
        control = self.armed.control
        if not control.passed and not self.blind:
            logger().error(Event.OBSERVER_BLIND, what=control.detail, cpus=list(control.cpus))
        if control.passed and self.blind:
            logger().info(Event.OBSERVER_SEES, what=control.detail, cpus=list(control.cpus))
        self.blind = not control.passed

    async def take(self, trial: Trial) -> TrialOutcome:
        """Step the evidence by one trial, and say what it changes."""
        outcome = await self.evidence.take(trial)
        self.age.looked(self.evidence.state.looked_unix_s)
        self.note_age()
        if trial.void:
            logger().warning(Event.TRIAL_VOID, trial=trial.trial_id, reason=trial.void)
            return outcome
        self.recent = newest([*self.recent, trial])
        self._note_failures(trial, outcome)
        _tell(trial, outcome, self.verdict_age_s)
        for alert in alerts(outcome, self.recent):
            getattr(logger(), alert.level)(alert.event, **alert.fields)
        return outcome

    def not_run(self, error: KickwatchError | OSError) -> None:
        """A trial failed as a whole: after two in a row nothing is known of the kernel, as when its containers fail."""
        self._not_run += 1
        if self._not_run >= FAILED_TRIALS and not self._failing:
            fields = {"what": str(error), "remedy": "it is tried again", "failed": 0, "containers": 0}
            if isinstance(error, KickwatchError):
                fields |= {"what": error.what, "remedy": error.remedy}
            logger().warning(Event.CONTAINERS_FAILED, **fields)
            self._failing = True

    def _note_failures(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Report once that the containers fail, with the engine's words, and once that they run again."""
        failing = VerdictReason.CONTAINERS_FAILED.value in outcome.reasons
        failures = [container.failure for container in trial.containers if container.failure]
        if failing and not self._failing:
            logger().warning(
                Event.CONTAINERS_FAILED,
                what=failures[0] if failures else "no container was started",
                remedy="nothing is known of the kernel while no container runs: follow what the engine says",
                failed=len(failures),
                containers=len(trial.containers),
            )
            self._failing = True
        self._not_run = 0
        if self._failing and not nearly_all_failed(trial) and counted(trial):
            logger().info(Event.CONTAINERS_RUN, containers=len(counted(trial)), failed=len(failures))
            self._failing = False

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


def _tell(trial: Trial, outcome: TrialOutcome, verdict_age_s: float | None) -> None:
    logger().info(
        Event.TRIAL_FINISHED,
        trial=trial.trial_id,
        verdict=outcome.verdict.value,
        reasons=list(outcome.reasons),
        findings=list(outcome.findings),
        containers=len(counted(trial)),
        failures=[container.failure for container in trial.containers if container.failure][:_FAILURES_TOLD],
        failed=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=known_creation_broadcasts(trial),
        more_containers=outcome.more_containers,
        seed=trial.seed,
        order=list(trial.order),
        kmem_accounting=trial.kmem_accounting.value,
        verdict_age_s=rounded(verdict_age_s),
    )
