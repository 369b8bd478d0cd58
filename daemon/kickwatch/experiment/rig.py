"""What all trials of a session share: engine, image, cgroups, observers, canary. Set up once, always taken down."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineAnswerLostError, EngineError, KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.clean_up import forget_gone, log_clean_up_failed, log_failure, reap_everything
from kickwatch.experiment.engine_setup import EngineSetup, present_image
from kickwatch.experiment.engine_workload import SETTLE_S, EngineWorkload, broadcasts_since
from kickwatch.experiment.own_work import OwnWork, Work
from kickwatch.experiment.whole_windows import EXPECTED_CONTAINER_S
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import Container, Node
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.idle import idle_cpus_halt
from kickwatch.observe.observatory import Observatory
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import Shutdown
from kickwatch.workload.canary import Canary
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.engine_choice import EngineNames, choose_engine, fill_unnamed, resolve_names
from kickwatch.workload.knobs import Knobs
from kickwatch.workload.names import new_trial_id, read_instance
from kickwatch.workload.reaper import reap_containers

WARM_UP_CONTAINERS = 1  # each session starts this many before its first trial
# Trials, where CPUs are isolated: a reclaim makes every CPU with pages in an LRU batch drain it, whoever they belong to
# (lru_add_drain_all). Until then some hundred memcgs stay as dying ones.
RECLAIM_EVERY = 10
_WARM_UP_MEMCGS = 5
_CLEAN_UP_S = 60.0
_UNNAMED_REMEDY = "does `docker info` show them? If they appear later, trials are compared as on a different engine"


@dataclass
class Rig:
    """An armed node. Use as `async with Rig.open(config) as rig`."""

    setup: EngineSetup
    armed: ArmedObservers
    canary: Canary
    reaped: int = 0  # containers of an earlier kickwatch that were removed
    alive: Callable[[], None] = lambda: None
    remarks: list[Remark] = field(default_factory=list)
    kernel_memory_paid: bool = False  # a bare memcg of the canary was charged
    boot_id: str = ""  # read once: it does not change, and a read can fail
    rcu_expedited: bool = False
    idle_cpus_halt: bool | None = None  # read once, without a probe: a driver loaded later makes no other node
    own: OwnWork = field(default_factory=OwnWork)
    trials: int = 0  # prepared so far
    life_s: float = EXPECTED_CONTAINER_S  # of a container: three of four of the latest trial were as short

    @property
    def engine(self) -> Engine:
        """The container engine."""
        return self.setup.engine

    @property
    def info(self) -> EngineInfo:
        """Name, version and cgroup driver of the engine."""
        return self.setup.info

    @property
    def cgroups(self) -> Cgroups:
        """The memory cgroups of this node."""
        return self.setup.cgroups

    @property
    def observatory(self) -> Observatory:
        """The armed observers."""
        return self.armed.observatory

    def workload(self, trial_id: str, containers: int) -> EngineWorkload:
        """The containers and memory cgroups of one trial."""
        self.trials += 1
        return EngineWorkload(
            setup=self.setup,
            canary=self.canary,
            trial_id=trial_id,
            creation_broadcasts=self.armed.creation_broadcasts,
            read_node=self.node,
            kernel_memory_paid=self.kernel_memory_paid,
            setup_remarks=self.remarks,
            containers=containers,
            own=self.own,
            observatory=self.observatory,
            reclaims=not self.observatory.isolated_cpus or self.trials % RECLAIM_EVERY == 0,
        )

    def node(self) -> Node:
        """The node as records describe it. Trials are compared only if these fields are equal."""
        return Node(
            kernel=kernel.release(),
            arch=kernel.architecture(),
            cpus_online=self.observatory.cpus_online,
            cgroup=self.cgroups.version,
            engine=str(self.info),
            runtime=self.info.runtime,
            network=self.setup.config.workload.network,
            boot_id=self.boot_id or kernel.boot_id(),
            rcu_expedited=self._rcu_expedited(),
            idle_cpus_halt=self.idle_cpus_halt,
        )

    def _rcu_expedited(self) -> bool:
        """The previous value if it cannot be read now: a failed read must not look like a different node."""
        with suppress(OSError):
            self.rcu_expedited = kernel.rcu_expedited()
        return self.rcu_expedited

    async def engine_changed(self) -> bool:
        """True if the engine was upgraded, or has another cgroup driver. Raises EngineAbsentError.

        Under load an engine may be unable to ask its runtime for its version. That is not a change.
        """
        return fill_unnamed(await self.engine.info(), EngineNames.of(self.info)) != self.info

    async def tidy(self) -> int:
        """Between two trials: remove containers whose removal failed, or that appeared after their creation timed out.

        Returns their number. What cannot be removed is logged, and tried again after the next trial. If the engine is
        gone, the next trial finds out.
        """
        try:
            reaped = await reap_containers(self.engine, self.setup.instance)
            await asyncio.to_thread(forget_gone, self.cgroups, ContainerRecord())
            return reaped
        except EngineAnswerLostError:
            return 0
        except EngineError as error:
            log_clean_up_failed(error)
            return 0

    async def recover(self) -> None:
        """After a failed trial: remove what it may have left, and restart the canary's child."""
        await reap_everything(self.engine, self.info, self.setup.instance, self.cgroups)
        await log_failure(self.canary.restart())

    async def warm_up(self) -> None:
        """One container and a few bare memcgs without limits: the first kmem memcg of a boot flips static keys."""
        plan = self.setup.plan(new_trial_id(), WARM_UP_CONTAINERS)
        knobs, after = Knobs(parent=self.setup.parent_memcg), broadcasts_since(self.armed.creation_broadcasts)
        (container,) = await self.setup.churn(plan, knobs, after).run()
        if container.failure:
            self.remarks.append(Remark(RemarkKind.WARM_UP_FAILED, f"warm-up: {container.failure}"))
        else:
            self.life_s = life_s(container)
        self.kernel_memory_paid = await self.canary.charges_kernel_memory()
        await self.canary.create_batch(_WARM_UP_MEMCGS)
        await self.canary.remove_batch()
        await asyncio.sleep(SETTLE_S)

    @classmethod
    def open(
        cls,
        config: Config,
        armed: ArmedObservers | None = None,
        alive: Callable[[], None] = lambda: None,
        ending: Shutdown | None = None,
        known: EngineNames | None = None,
        *,
        own: OwnWork | None = None,
    ) -> "Opening":
        """Set everything up. On exit containers, cgroups, image and probes are removed.

        Observers passed as `armed` stay open. `alive` is called at the end of each call to the engine, failed or not.
        Once `ending` has begun, calls to an engine that does not answer are cut short. `known`: how the engine named
        itself before, in case it cannot name its runtime now. `own`: counts what reaches isolated CPUs meanwhile.
        """
        return Opening(config, armed, alive, ending or Shutdown(), known, own=own)


def life_s(container: Container) -> float:
    """How long a container lived, from the call that created it to the end of its removal."""
    created_ms = (container.sandbox_ms or 0.0) + container.create_ms
    return (created_ms + container.start_ms + container.wait_ms + container.remove_ms) / 1e3


class Opening:
    """The two-phase start and the bounded stop of a Rig. `begun`: containers that the start requested."""

    def __init__(
        self,
        config: Config,
        armed: ArmedObservers | None,
        alive: Callable[[], None],
        ending: Shutdown,
        known: EngineNames | None = None,
        *,
        own: OwnWork | None = None,
    ) -> None:
        self._config = config
        self._own = own or OwnWork()
        self._armed = armed
        self._alive = alive
        self._ending = ending
        self._known = known
        self.begun = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rig:
        try:
            return await self._set_up()
        except BaseException:
            await self._take_down()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._take_down()

    async def _take_down(self) -> None:
        """Runs to its end even if a second signal comes. If the engine hangs, the next start removes the rest."""
        try:
            await run_shielded(self._stack.aclose(), _CLEAN_UP_S)
        except TimeoutError:
            what = f"clean-up did not end within {_CLEAN_UP_S:.0f} s"
            logger().error(Event.CLEAN_UP_FAILED, what=what, remedy="the next start of kickwatch removes the rest")
        except KickwatchError as error:  # must not hide what ended the session: a signal, an engine that is gone
            log_clean_up_failed(error)

    async def _set_up(self) -> Rig:
        config = self._config
        cgroups = await asyncio.to_thread(Cgroups.read)
        chosen = await choose_engine(config, workers=config.workload.concurrency + 1, on_call_end=self._alive)
        engine = chosen.engine
        self._stack.push_async_callback(engine.close)
        self._stack.enter_context(self._ending.calls(engine.shorten_timeouts))
        info, unnamed = await resolve_names(chosen, self._known)
        if unnamed:
            logger().warning(Event.ENGINE_UNNAMED, what=unnamed, remedy=_UNNAMED_REMEDY)
        instance = await asyncio.to_thread(read_instance)
        image = await present_image(engine, config.workload.image, self._stack)
        reap = partial(reap_everything, engine, info, instance, cgroups)
        reaped = await reap()
        self._stack.push_async_callback(reap)  # runs in reverse order: containers are removed before the image they use
        armed = self._armed or await ArmedObservers.open(config, self._own)
        if self._armed is None:
            self._stack.push_async_callback(self._disarm, armed)
        canary = await self._stack.enter_async_context(Canary(cgroups))
        setup = EngineSetup(config, engine, info, instance, cgroups, image)
        rig = Rig(setup, armed, canary, reaped, self._alive, list(chosen.remarks), own=self._own)
        if armed.observatory.requests is None:  # only counters ask: before 5.18 it may interrupt busy CPUs
            rig.idle_cpus_halt = await asyncio.to_thread(idle_cpus_halt)
        rig.boot_id = await asyncio.to_thread(kernel.boot_id)
        self.begun = WARM_UP_CONTAINERS
        async with self._own.during(Work.WARM_UP, armed.observatory):
            await rig.warm_up()
        return rig

    async def _disarm(self, armed: ArmedObservers) -> None:
        async with self._own.during(Work.DISARMING):
            armed.close()
