"""Runs a trial on a rig, with the settings of the configuration and the clocks of this machine."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from kickwatch.experiment.engine_workload import EngineWorkload
from kickwatch.experiment.ports import SystemClock, TrialSettings
from kickwatch.experiment.rig import Rig
from kickwatch.experiment.trial import run_trial
from kickwatch.journal.remark import Remark
from kickwatch.model import Trial
from kickwatch.workload.names import new_trial_id


@dataclass
class TrialRun:
    """One trial. `number`: how many trials this process has begun before. `run` once."""

    rig: Rig
    containers: int
    progress: Callable[[str], None]
    number: int = 0
    trial_id: str = field(default_factory=new_trial_id)
    _workload: EngineWorkload = field(init=False)

    def __post_init__(self) -> None:
        """Nothing starts before `run`."""
        self._workload = self.rig.workload(self.trial_id)

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
        return await run_trial(
            self._settings(),
            self.rig.armed,
            self._workload,
            SystemClock(),
            progress=self.progress,
            alive=self.rig.alive,
        )

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
        )
