"""This node behind the Protocols of `experiments`: real rigs, real trials, the kernel's readings."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.clean_up import sweep
from kickwatch.experiment.passive import Passive
from kickwatch.experiment.rig import Opening, Rig
from kickwatch.experiment.steps import texts_to
from kickwatch.experiment.trial_run import TrialRun
from kickwatch.journal.remark import Remark
from kickwatch.model import Observers
from kickwatch.node.pressure import DyingMemcgs, Pressure, read_pressure
from kickwatch.observe.containers import ContainersRung
from kickwatch.observe.losses import Loss
from kickwatch.process.signals import Shutdown
from kickwatch.service.experiments import Step
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import EngineNames


class NodeRig:
    """A rig as a session uses it."""

    def __init__(self, rig: Rig) -> None:
        """`rig` is open."""
        self._rig = rig
        self._dying = DyingMemcgs(rig.cgroups)

    @property
    def info(self) -> EngineInfo:
        """Name, version and runtime of the engine."""
        return self._rig.info

    @property
    def remarks(self) -> Iterable[Remark]:
        """What a person should know of the set-up."""
        return self._rig.remarks

    @property
    def reaped(self) -> int:
        """Containers of an earlier kickwatch, removed at the start."""
        return self._rig.reaped

    def trial(self, containers: int, step: Step, number: int) -> TrialRun:
        """Prepare a trial."""
        return TrialRun(self._rig, containers, texts_to(step), number)

    async def pressure(self) -> Pressure:
        """Everything the guard decides from. If the engine does not answer, the next trial reports that."""
        try:
            running = await self._rig.engine.count_running()
        except KickwatchError:
            running = None
        return await asyncio.to_thread(read_pressure, Path(self.info.root), running, self._dying)

    async def engine_changed(self) -> bool:
        """True if the engine is another one than at the start. Raises EngineAbsentError."""
        return await self._rig.engine_changed()

    async def tidy(self) -> int:
        """Remove containers that a trial could not; returns how many."""
        return await self._rig.tidy()

    async def recover(self) -> None:
        """Remove what a failed trial may have left. Raises EngineAbsentError if there is no engine to ask."""
        await self._rig.engine.info()
        await self._rig.recover()

    def shorten_timeouts(self) -> None:
        """Give up calls to the engine soon."""
        self._rig.engine.shorten_timeouts()


class NodeRigOpening:
    """Sets a rig up, and takes it down."""

    def __init__(self, opening: Opening) -> None:
        """As `Rig.open` returns it."""
        self._opening = opening

    @property
    def begun(self) -> int:
        """Containers that the start asked the engine for."""
        return self._opening.begun

    async def __aenter__(self) -> NodeRig:
        """Raises KickwatchError, OSError, with everything taken down."""
        return NodeRig(await self._opening.__aenter__())

    async def __aexit__(self, *error: object) -> None:
        """Within a limit, and to the end whatever happens."""
        await self._opening.__aexit__(*error)


class NodeExperiments:
    """This node."""

    def __init__(self, armed: ArmedObservers, heartbeat: Callable[[], None], shutdown: Shutdown) -> None:
        """The observers in `armed` stay armed. `heartbeat` and `shutdown`: `alive` and `ending` of `Rig.open`."""
        self._armed = armed
        self._heartbeat = heartbeat
        self._shutdown = shutdown

    @property
    def cpus_online(self) -> int:
        """CPUs that are online."""
        return self._armed.observatory.cpus_online

    @property
    def observers(self) -> Observers:
        """Which observers are armed, on which rung."""
        return self._armed.observatory.observers

    @property
    def containers_rung(self) -> ContainersRung:
        """How the containers of others are counted, in passive mode."""
        return self._armed.observatory.containers_rung

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What the observers cannot see, each with its cause."""
        return tuple(self._armed.observatory.present_losses)

    def open_rig(self, config: Config, known: EngineNames | None) -> NodeRigOpening:
        """A rig with the configured engine."""
        self._armed.follow(config)
        self._armed.observatory.leave_passive()
        return NodeRigOpening(Rig.open(config, self._armed, self._heartbeat, self._shutdown, known))

    def passive(self, config: Config, step: Step) -> Passive:
        """The bill of containers that others start."""
        self._armed.follow(config)
        return Passive(config, self._armed, step)

    async def sweep(self, config: Config) -> int:
        """Remove what a killed kickwatch left; returns how many containers. Raises KickwatchError."""
        return await sweep(config, self._heartbeat)

    async def pressure(self) -> Pressure:
        """What the guard can read before an engine answers."""
        return await asyncio.to_thread(read_pressure, None, None, None)
