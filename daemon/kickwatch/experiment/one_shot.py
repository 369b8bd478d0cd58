"""`kickwatch trial`: set up, run one trial or as many as the verdict needs, then take everything down."""

import asyncio

from kickwatch.configuration.types import Config
from kickwatch.detect.figures import counted
from kickwatch.detect.single import Single, one_shot
from kickwatch.detect.verdict import VerdictReason
from kickwatch.errors import EngineError
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
from kickwatch.process.signals import Shutdown

_MOST_TRIALS, _LEAST_CONTAINERS, _MOST_CONTAINERS = 20, 10, 200


async def decide(
    config: Config,
    containers: int,
    progress: Progress,
    *,
    until_decided: bool = False,
    ending: Shutdown | None = None,
    own: OwnWork | None = None,
) -> tuple[list[Trial], Single]:
    """Run one trial; with `until_decided`, more while they can decide. Returns all of them and their verdict.

    `own`: counts what reaches isolated CPUs outside the trials.
    """
    own = own or OwnWork()
    own.isolated = await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config))
    leave_isolated_cpus(own.isolated)
    async with own.during(Work.START_TO_STOP):
        progress(RunStep(RunPhase.SETUP))
        with NodeLock():
            async with Rig.open(config, ending=ending, own=own) as rig:
                decided = await _trials(rig, containers, progress, until_decided=until_decided)
                progress(RunStep(RunPhase.CLEANUP, done=containers, total=containers))
                return decided


async def _trials(rig: Rig, containers: int, progress: Progress, *, until_decided: bool) -> tuple[list[Trial], Single]:
    trials = [await TrialRun(rig, containers, progress, one_shot=True).run()]
    single = one_shot(trials)
    while until_decided and single.verdict is Verdict.UNKNOWN and single.more_containers:
        if len(trials) >= _MOST_TRIALS or not counted(trials[-1]):  # all failed: more would fail too
            break
        if await rig.engine_changed():
            raise EngineError("container engine changed between trials", "run the command again")
        progress(RunStep(RunPhase.SETUP, f"undecided: about {single.more_containers} more containers"))
        before = sum(len(trial.containers) for trial in trials)
        trials.append(await TrialRun(rig, more_of(single, before), progress, len(trials), one_shot=True).run())
        single = one_shot(trials)
    return trials, single


def more_of(single: Single, containers: int) -> int:
    """Containers of the next trial, after `containers`.

    Pairs that were outlasted say little, so for pairs the estimate is too high: only half as many as there were.
    """
    wanted = single.more_containers or 0
    if VerdictReason.BROADCASTS_ELSEWHERE in single.reasons:
        wanted = min(wanted, containers // 2)
    return min(max(wanted, _LEAST_CONTAINERS), _MOST_CONTAINERS)
