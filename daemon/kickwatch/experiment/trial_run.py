"""Runs a trial on a rig, with the settings of the configuration and the clocks of this machine."""

import secrets
from dataclasses import dataclass, field

from kickwatch.configuration.types import Design
from kickwatch.detect.figures import counted
from kickwatch.experiment.engine_workload import EngineWorkload
from kickwatch.experiment.ports import SystemClock, TrialSettings
from kickwatch.experiment.rig import Rig, life_s
from kickwatch.experiment.steps import Progress
from kickwatch.experiment.trial import run_trial
from kickwatch.journal.remark import Remark
from kickwatch.model import Trial
from kickwatch.workload.names import new_trial_id

WHOLE_EVERY = 3  # trials of a mixed design


@dataclass
class TrialRun:
    """One trial. `number`: how many trials this process has begun before. `run` once.

    `one_shot`: no daemon watches on, so there is no use for a whole trial in between: a run's verdict rests on pairs.
    """

    rig: Rig
    containers: int
    progress: Progress
    number: int = 0
    one_shot: bool = False
    trial_id: str = field(default_factory=new_trial_id)
    _workload: EngineWorkload = field(init=False)

    def __post_init__(self) -> None:
        """Nothing starts before `run`."""
        self._workload = self.rig.workload(self.trial_id, self.containers)

    @property
    def begun(self) -> int:
        """Containers requested from the engine so far. Also valid after the trial failed or was cancelled."""
        return self._workload.begun

    @property
    def remarks(self) -> list[Remark]:
        """What a person should know about this trial."""
        return self._workload.remarks

    async def run(self) -> Trial:
        """Run it and return its record. Raises KickwatchError or OSError if it cannot be completed."""
        settings = self._settings()
        trial = await run_trial(
            settings,
            self.rig.armed,
            self._workload,
            SystemClock(),
            progress=self.progress,
            alive=self.rig.alive,
        )
        lives_s = sorted(map(life_s, counted(trial)))
        if lives_s:
            self.rig.life_s = lives_s[len(lives_s) * 3 // 4]
        return trial

    def _settings(self) -> TrialSettings:
        """A configured seed gives each trial of a daemon a different order. The recorded seed repeats this one."""
        config = self.rig.setup.config.trial
        plan = self.rig.setup.plan(self.trial_id, self.containers)
        return TrialSettings(
            trial_id=self.trial_id,
            seed=(config.seed or secrets.randbits(32)) + self.number,
            containers=self.containers,
            window_s=config.window_s,
            settle_s=config.settle_s,
            canary_memcgs=config.canary_memcgs,
            concurrency=plan.concurrency,
            hold_s=plan.hold_s,
            paired=is_paired(config.design, 0 if self.one_shot else self.number),
            life_s=self.rig.life_s,
        )


def is_paired(design: Design, number: int) -> bool:
    """Whether trial `number` of this process compares pairs of halves.

    Every third trial of a mixed design compares whole windows. Two in a row have enough pairs to find a broadcast that
    comes with each container.
    """
    return number % WHOLE_EVERY != WHOLE_EVERY - 1 if design is Design.MIXED else design is Design.PAIRED
