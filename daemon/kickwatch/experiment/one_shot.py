"""`kickwatch trial` and `gate`: set up, run one trial or as many as the verdict needs, then take everything down."""

import asyncio
import time
from dataclasses import dataclass, field

from kickwatch.configuration.types import Config
from kickwatch.detect.figures import counted
from kickwatch.detect.oneshot import ALPHA
from kickwatch.detect.single import Single, one_shot
from kickwatch.detect.verdict import VerdictReason
from kickwatch.errors import EngineError, TimeLimitError
from kickwatch.experiment.armed_observers import listed_cpus
from kickwatch.experiment.own_work import OwnWork, Work
from kickwatch.experiment.rig import Rig
from kickwatch.experiment.steps import Progress, RunPhase, RunStep
from kickwatch.experiment.trial_run import TrialRun
from kickwatch.model import Trial, Verdict
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.node.roots import HOST
from kickwatch.process.cancellation import timeout
from kickwatch.process.signals import Shutdown

_MOST_TRIALS, _LEAST_CONTAINERS, _MOST_CONTAINERS = 20, 10, 200


@dataclass(frozen=True)
class RunLimits:
    """How far a run goes. The clock of `time_limit_s` starts when this is made; without one there is no limit.

    `until_decided`: more than one trial, while they can decide. `error_rate`: of a wrong verdict, on either side.
    """

    until_decided: bool = False
    error_rate: float = ALPHA
    time_limit_s: float | None = None
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float | None:
        """Time until the limit, at least 0; None without one."""
        if self.time_limit_s is None:
            return None
        return max(0.0, self.begun_s + self.time_limit_s - time.monotonic())

    def affordable(self, containers: int, each_s: float) -> int:
        """How many of these containers end in time, if one takes `each_s`; 0 if too few for a trial."""
        left_s = self.left_s
        fit = containers if left_s is None else min(containers, int(left_s / each_s))
        return fit if fit >= _LEAST_CONTAINERS else 0


async def decide(
    config: Config,
    containers: int,
    progress: Progress,
    limits: RunLimits,
    *,
    ending: Shutdown | None = None,
    own: OwnWork | None = None,
) -> tuple[list[Trial], Single]:
    """Run one trial, and more as far as `limits` allow. Returns all that were completed and their verdict.

    `own`: counts what reaches isolated CPUs outside the trials. Raises TimeLimitError if no trial ended in time.
    """
    own = own or OwnWork()
    own.isolated = await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config))
    leave_isolated_cpus(own.isolated)
    async with own.during(Work.START_TO_STOP):
        progress(RunStep(RunPhase.SETUP))
        with NodeLock():
            async with Rig.open(config, ending=ending, own=own) as rig:
                trials = await _trials(rig, containers, progress, limits)
                progress(RunStep(RunPhase.CLEANUP, done=containers, total=containers))
                if not trials:
                    raise TimeLimitError(
                        f"no trial of {containers} containers ended within {limits.time_limit_s:g} s",
                        "raise --time-limit",
                    )
                return trials, one_shot(trials, limits.error_rate)


async def _trials(rig: Rig, containers: int, progress: Progress, limits: RunLimits) -> list[Trial]:
    """At most one trial is cut off by the time limit; it does not count."""
    trials: list[Trial] = []
    while containers:
        begun_s = time.monotonic()
        try:
            async with timeout(limits.left_s):
                trials.append(await TrialRun(rig, containers, progress, len(trials), one_shot=True).run())
        except TimeoutError:
            if limits.left_s != 0.0:
                raise
            break
        single = one_shot(trials, limits.error_rate)
        if not limits.until_decided or single.verdict is not Verdict.UNKNOWN or not single.more_containers:
            break
        if len(trials) >= _MOST_TRIALS or not counted(trials[-1]):  # all failed: more would fail too
            break
        if await rig.engine_changed():
            raise EngineError("container engine changed between trials", "run the command again")
        progress(RunStep(RunPhase.SETUP, f"undecided: about {single.more_containers} more containers"))
        so_far = sum(len(trial.containers) for trial in trials)
        containers = limits.affordable(more_of(single, so_far), (time.monotonic() - begun_s) / containers)
    return trials


def more_of(single: Single, containers: int) -> int:
    """Containers of the next trial, after `containers`.

    Pairs that were outlasted say little, so for pairs the estimate is too high: only half as many as there were.
    """
    wanted = single.more_containers or 0
    if VerdictReason.BROADCASTS_ELSEWHERE in single.reasons:
        wanted = min(wanted, containers // 2)
    return min(max(wanted, _LEAST_CONTAINERS), _MOST_CONTAINERS)
