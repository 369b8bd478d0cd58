"""What the daemon remembers between trials: evidence, newest trials, the positive control, remarks already reported.

The condition is `quiet` only on current evidence: enough containers without broadcasts in this boot, confirmed
recently, by observers that passed their control. Everything else is `unknown`, with its reasons.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kickwatch.detect.figures import counted
from kickwatch.detect.quiet import FAILED_TRIALS, FRESH_CONTAINERS
from kickwatch.detect.state import TrialOutcome
from kickwatch.detect.verdict import MIN_CONTAINERS, VerdictReason, nearly_all_failed
from kickwatch.errors import KickwatchError, ObserveError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import AlarmKind, Condition, Trial, Verdict
from kickwatch.observe.losses import Loss, sentences
from kickwatch.outlets.belief import Belief
from kickwatch.outlets.events import (
    ContainersFailed,
    ContainersRun,
    ControlChanged,
    EvidenceOpened,
    PassiveTaken,
    Remarked,
    TrialTaken,
    VerdictFresh,
    VerdictStale,
)
from kickwatch.outlets.outlet import Report
from kickwatch.service.engine_backoff import error_fields
from kickwatch.service.evidence import Evidence
from kickwatch.service.verdict_age import VerdictAge

DAY_S = 86_400.0


@dataclass
class Watch:
    """Steps the evidence, and reports what changes. `boot_id`: the present boot's; empty if it does not matter."""

    armed: ArmedObservers
    evidence: Evidence
    report: Report
    max_age_s: float = DAY_S
    boot_id: str = ""
    now_s: Callable[[], float] = time.monotonic
    recent: list[Trial] = field(default_factory=list)
    reported: set[Remark] = field(default_factory=set)
    reported_losses: set[Loss] = field(default_factory=set)
    blind: bool = False
    controlled_s: float = 0.0
    passive: bool = False  # no trial runs: nothing establishes `quiet`
    age: VerdictAge = field(init=False)
    _failing: bool = False
    _failed_trials: int = 0  # in a row, each as a whole
    _stale: bool = False

    def __post_init__(self) -> None:
        """The verdict of an earlier daemon is as old as its last trial."""
        self.age = VerdictAge(self.evidence.state.looked_unix_s, self.now_s)

    @property
    def condition(self) -> Condition:
        """`quiet`, `broadcasting`, `contended` or `unknown`.

        An alarm holds without new trials: it ends when containers show that its cause is gone.
        """
        alerted = self.evidence.state.alerted
        if self._broadcasting:
            return Condition.BROADCASTING
        if self.reasons:
            return Condition.UNKNOWN
        return Condition.CONTENDED if AlarmKind.CONTENDED in alerted else Condition.QUIET

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the condition is `unknown`; empty if it is not."""
        state = self.evidence.state
        if self._broadcasting:
            return ()
        if self.blind:
            return (VerdictReason.BLIND.value,)
        if self._failed_trials >= FAILED_TRIALS and not self._other_boot:
            return (VerdictReason.CONTAINERS_FAILED.value,)
        if self._other_boot or not state.quiet.established or state.verdict is not Verdict.QUIET:
            known = () if self._other_boot or state.verdict is Verdict.QUIET else state.reasons
            return known or (VerdictReason.INSUFFICIENT_EVIDENCE.value,)
        return (VerdictReason.STALE.value,) if self.stale else ()

    @property
    def stale(self) -> bool:
        """True if the verdict was last confirmed too long ago."""
        age_s = self.verdict_age_s
        return age_s is not None and age_s > self.max_age_s

    @property
    def verdict_age_s(self) -> float | None:
        """Seconds since a trial last established something; None before the first that did."""
        return self.age.seconds

    @property
    def more_containers(self) -> int | None:
        """Containers without broadcasts still needed for `quiet`; None if something else is missing."""
        if self.passive or self.reasons != (VerdictReason.INSUFFICIENT_EVIDENCE.value,):
            return None
        state = self.evidence.state
        fresh = self._other_boot or state.verdict is Verdict.QUIET or not state.trials
        return FRESH_CONTAINERS if fresh else state.more_containers

    @property
    def _broadcasting(self) -> bool:
        """True while an alarm of this boot holds."""
        return AlarmKind.BROADCASTING in self.evidence.state.alerted and not self._other_boot

    @property
    def _other_boot(self) -> bool:
        """True if the evidence is of another boot: it proves nothing about this one, and the first trial drops it."""
        known = self.evidence.state.boot_id
        return bool(self.boot_id and known and known != self.boot_id)

    def belief(self) -> Belief:
        """What outlets show of all this."""
        state = self.evidence.state
        return Belief(
            condition=self.condition,
            reasons=self.reasons,
            verdict_age_s=self.verdict_age_s,
            more_containers=self.more_containers,
            control_passed=self.armed.control.passed,
            alerted=state.alerted,
            trials=state.trials,
            containers=state.containers,
            published_since_unix_s=state.published_since_unix_s,
            history_kept=self.evidence.kept,
            release=state.release,
        )

    async def adopt(self, evidence: Evidence, max_age_s: float) -> None:
        """Continue under another configuration."""
        self.evidence, self.max_age_s = evidence, max_age_s
        await self.opened()

    async def opened(self) -> None:
        """Report the evidence in force."""
        await self.report(EvidenceOpened(self.evidence.figures, self.belief))

    async def check_age(self) -> None:
        """Report once that the verdict has become stale, and once that it is confirmed again."""
        stale, self._stale = self._stale, self.stale
        if self._stale and not stale:
            await self.report(VerdictStale(self.verdict_age_s or 0.0))
        if stale and not self._stale:
            await self.report(VerdictFresh(self.condition))

    async def control_if_due(self, period_s: float) -> None:
        """Repeat the positive control once per period, between windows."""
        if self.now_s() - self.controlled_s >= period_s:
            await self.armed.prove()
            await self.check_control()

    async def control_after(self, error: KickwatchError | OSError) -> None:
        """Repeat the control after a reading that the kernel refused: if it fails as well, nothing is known."""
        if isinstance(error, ObserveError):
            await self.control_if_due(0.0)

    async def check_control(self) -> None:
        """Report a control that fails, and the first that passes again, once each."""
        self.controlled_s = self.now_s()
        control = self.armed.control
        blind, self.blind = self.blind, not control.passed
        if self.blind != blind:
            await self.report(ControlChanged(control.passed, control.detail, tuple(control.cpus)))

    async def take(self, trial: Trial) -> TrialOutcome:
        """Step the evidence by one trial, and report what changes."""
        outcome = await self.evidence.take(trial)
        self.age.looked(self.evidence.state.looked_unix_s)
        await self.check_age()
        if not trial.void:
            self.recent = newest([*self.recent, trial])
            await self._check_containers(trial, outcome)
        taken = TrialTaken(trial, outcome, tuple(self.recent), self.verdict_age_s, self.evidence.figures)
        await self.report(taken)
        return outcome

    async def take_passive(self, record: Trial) -> None:
        """Step the evidence by a record of passive mode. Only changes of alarms are reported."""
        outcome = await self.evidence.take(record)
        if not record.void:
            self.recent = newest([*self.recent, record])
        await self.report(PassiveTaken(outcome, tuple(self.recent), self.evidence.figures))

    async def trial_failed(self, error: KickwatchError | OSError) -> None:
        """A trial failed as a whole. After two in a row nothing is known of the kernel, as when containers fail."""
        self._failed_trials += 1
        if self._failed_trials >= FAILED_TRIALS and not self._failing:
            self._failing = True
            await self.report(ContainersFailed(**error_fields(error), failed=0, containers=0))

    async def _check_containers(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Report once that the containers fail, with the engine's error, and once that they run again."""
        failing = VerdictReason.CONTAINERS_FAILED.value in outcome.reasons
        failures = [container.failure for container in trial.containers if container.failure]
        if failing and not self._failing:
            self._failing = True
            what = failures[0] if failures else "no container was started"
            remedy = "nothing is known of the kernel while no container runs: fix what the engine reports"
            await self.report(ContainersFailed(what, remedy, len(failures), len(trial.containers)))
        self._failed_trials = 0
        if self._failing and not nearly_all_failed(trial) and counted(trial):
            self._failing = False
            await self.report(ContainersRun(len(counted(trial)), len(failures)))

    async def remark_losses(self, losses: Iterable[Loss]) -> None:
        """Report each loss once. The record of a cause that takes away more than before has only the rest."""
        new = [loss for loss in losses if loss not in self.reported_losses]
        self.reported_losses.update(new)
        await self.remark(Remark(RemarkKind.CAPABILITY_LOST, text) for text in sentences(new))

    async def remark(self, remarks: Iterable[Remark]) -> None:
        """Report what a person should know of the set-up (an ignored knob, a lost rung), each remark once."""
        for remark in remarks:
            if remark not in self.reported:
                self.reported.add(remark)
                await self.report(Remarked(remark))


def newest(trials: Sequence[Trial]) -> list[Trial]:
    """The newest trials that together have enough containers for the figures of an alert."""
    kept: list[Trial] = []
    containers = 0
    for trial in reversed(trials[-MIN_CONTAINERS:]):  # a limit: failed trials bring no containers
        if containers >= MIN_CONTAINERS:
            break
        kept.insert(0, trial)
        containers += len(counted(trial))
    return kept
