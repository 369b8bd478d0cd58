"""Everything a trial needs, set up once and taken down whatever happens: engine, image, cgroups, observers, warm-up."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineAnswerLostError, EngineError, ImageAbsentError, KickwatchError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.clean_up import reap_everything, say_clean_up_failed, tell_failure
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.model import Control, Node
from kickwatch.native import binary
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, CgroupVersion, nokmem, reclaim
from kickwatch.observe.observatory import Observatory
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import Shutdown
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.canary import Canary
from kickwatch.workload.churn import Churn, ChurnPlan
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.engine_choice import EngineNames, choose_engine, fill_unnamed, resolve_names
from kickwatch.workload.image import image_reference
from kickwatch.workload.knobs import Knobs
from kickwatch.workload.names import cgroup_parent, new_trial_id, read_instance
from kickwatch.workload.reaper import reap_containers

T = TypeVar("T")
WARM_UP_CONTAINERS = 1  # each start makes so many before its first trial
_WARM_UP_MEMCGS = 5
_WARM_UP_SETTLE_S = 1.0
_CLEAN_UP_S = 60.0
_UNNAMED_REMEDY = "does `docker info` show them? A name that comes later is another set-up where none was known"


@dataclass
class Rig:
    """An armed node. Use as `async with Rig.open(config) as rig`."""

    config: Config
    engine: Engine
    info: EngineInfo
    instance: str
    cgroups: Cgroups
    image: str
    armed: ArmedObservers
    canary: Canary
    reaped: int = 0
    alive: Callable[[], None] = lambda: None
    remarks: list[Remark] = field(default_factory=list)
    kernel_memory_paid: bool = False  # on cgroup v2, whether the canary's parent was charged for a bare child
    boot_id: str = ""  # read once: it stays, and a read can fail
    rcu_expedited: bool = False

    @property
    def observatory(self) -> Observatory:
        """The armed observers."""
        return self.armed.observatory

    @property
    def control(self) -> Control:
        """The newest positive control."""
        return self.armed.control

    async def engine_changed(self) -> bool:
        """Whether the engine has become another one: upgraded, or with another cgroup driver. Raises EngineAbsentError.

        An engine under load may not be able to ask its runtime for its version: that is no change.
        """
        return fill_unnamed(await self.engine.info(), EngineNames(str(self.info), self.info.runtime)) != self.info

    @property
    def parent_name(self) -> str:
        """The cgroup parent as the engine is told."""
        return self.info.cgroup_parent or cgroup_parent(self.info.cgroup_driver)

    @property
    def endpoint(self) -> Path:
        """The engine's socket, or the program it is."""
        return Path(self.info.endpoint or self.config.engine.socket)

    @property
    def parent_memcg(self) -> Path:
        """The memcg directory above our containers."""
        return self.cgroups.memory_root / self.parent_name.lstrip("/")

    def kmem_disabled(self) -> bool:
        """True when the kernel was told not to account kernel memory."""
        return nokmem(kernel.command_line())

    @property
    def own_image(self) -> bool:
        """True with our own program in the containers, False with a user's image."""
        return not self.config.workload.image

    def node(self) -> Node:
        """What stratum this is."""
        return Node(
            kernel=kernel.release(),
            arch=kernel.architecture(),
            cpus_online=self.observatory.cpus_online,
            cgroup=self.cgroups.version,
            engine=str(self.info),
            runtime=self.info.runtime,
            network=self.config.workload.network,
            boot_id=self.boot_id or kernel.boot_id(),
            rcu_expedited=self._rcu_expedited(),
        )

    def _rcu_expedited(self) -> bool:
        """As it was last read where it cannot be read now: that is no other stratum."""
        with suppress(OSError):
            self.rcu_expedited = kernel.rcu_expedited()
        return self.rcu_expedited

    def plan(self, trial_id: str, containers: int) -> ChurnPlan:
        """The churn the configuration asks for."""
        workload = self.config.workload
        own = ("--deadline-ms", str(int((workload.hold_s + self.config.engine.timeout_s) * 1000)))
        return ChurnPlan(
            image=self.image,
            command=own if self.own_image else tuple(workload.command),
            network=workload.network,
            instance=self.instance,
            trial=trial_id,
            cgroup_parent=self.parent_name,
            containers=containers,
            concurrency=1 if workload.kmem_tcp_limit_bytes else workload.concurrency,
            rate_hz=workload.rate_hz,
            hold_s=workload.hold_s,
            wait_s=self.config.engine.timeout_s,
            own_program=self.own_image,
        )

    def knobs(self) -> Knobs:
        """The kmem knobs the configuration asks for."""
        workload = self.config.workload
        return Knobs(
            kmem_limit_bytes=workload.kmem_limit_bytes,
            kmem_tcp_limit_bytes=workload.kmem_tcp_limit_bytes,
            parent=self.parent_memcg,
        )

    def churn(self, plan: ChurnPlan, knobs: Knobs) -> Churn:
        """A churn of that plan, with the creation path read after each container."""
        barrier = Barrier(self.cgroups, self.parent_memcg, own_program=self.own_image)

        last = self.observatory.creation_broadcasts()

        async def broadcasts() -> int | None:
            nonlocal last
            before, last = last, self.observatory.creation_broadcasts()
            return None if before is None or last is None else last - before

        return Churn(self.engine, plan, barrier, knobs, broadcasts)

    async def reclaim(self) -> None:
        """Push the dying memcgs below our own parent out, so that churn does not pile them up."""
        _ = await asyncio.to_thread(reclaim, self.parent_memcg)  # what stays is tried again after the next trial

    async def tidy(self) -> int:
        """Between two trials: remove what could not be removed, or was made after its call was given up.

        Returns how many containers there were. What stays is said, and tried again after the next trial; an engine
        that is gone is found out by that one.
        """
        try:
            return await reap_containers(self.engine, self.instance)
        except EngineAnswerLostError:
            return 0
        except EngineError as error:
            say_clean_up_failed(error)
            return 0

    async def recover(self) -> None:
        """After a trial that failed: remove what it may have left, and give the canary a new child."""
        await reap_everything(self.engine, self.info, self.instance, self.cgroups)
        await tell_failure(self.canary.restart())

    async def restore(self) -> None:
        """Before a trial: make again what others have removed since it was made. Each is logged.

        A cgroup parent that is gone is made again by the engine. Raises KickwatchError or OSError where something
        cannot be made again, a user's image above all.
        """
        made = [what for what in (await self._restore_image(), await self.canary.restore()) if what]
        for what in made:
            logger().info(Event.RESTORED, what=what)
        if made:
            await asyncio.sleep(_WARM_UP_SETTLE_S)

    async def _restore_image(self) -> str:
        """What was done, empty for nothing."""
        try:
            await self.engine.require_image(self.image)
        except ImageAbsentError:
            if not self.own_image:
                raise
            await self.engine.prepare_image(await _own_program())
            return f"the image {self.image} was removed, in whole or in part; it is made again"
        return ""

    async def warm_up(self) -> None:
        """One container and a few bare memcgs without limits: the first kmem memcg of a boot flips static keys."""
        plan = self.plan(new_trial_id(), 1)
        knobs = Knobs(parent=self.parent_memcg)
        (container,) = await self.churn(plan, knobs).run()
        if container.failure:
            self.remarks.append(Remark(RemarkKind.WARM_UP_FAILED, f"warm-up: {container.failure}"))
        if self.cgroups.version is CgroupVersion.V2:
            self.kernel_memory_paid = await self.canary.charges_kernel_memory()
        await self.canary.create_batch(_WARM_UP_MEMCGS)
        await self.canary.remove_batch()
        await asyncio.sleep(_WARM_UP_SETTLE_S)

    @classmethod
    def open(
        cls,
        config: Config,
        armed: ArmedObservers | None = None,
        alive: Callable[[], None] = lambda: None,
        ending: Shutdown | None = None,
        known: EngineNames | None = None,
    ) -> "_Opening":
        """Set everything up; on the way out containers, cgroups, image and probes are gone again.

        Observers that are given (`armed`) stay open. `alive` is called whenever a call to the engine has ended, however
        it did. Once `ending` begins, an engine that hangs is not waited for with all the time its calls have. `known`:
        how the engine named itself before, for one that cannot name its runtime now.
        """
        return _Opening(config, armed, alive, ending or Shutdown(), known)


class _Opening:
    """The two-phase start and the bounded stop of a Rig. `begun`: containers that the start asked for."""

    def __init__(
        self,
        config: Config,
        armed: ArmedObservers | None,
        alive: Callable[[], None],
        ending: Shutdown,
        known: EngineNames | None = None,
    ) -> None:
        self._config = config
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
        """To its end even if a second signal comes; what an engine that hangs keeps is the next start's to reap."""
        try:
            await run_shielded(self._stack.aclose(), _CLEAN_UP_S)
        except TimeoutError:
            what = f"clean-up did not end within {_CLEAN_UP_S:.0f} s"
            logger().error(Event.CLEAN_UP_FAILED, what=what, remedy="the next start of kickwatch removes the rest")
        except KickwatchError as error:  # whatever ends the rig, a signal or an engine that is gone, goes on
            say_clean_up_failed(error)

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
        image = await self._image(engine)
        reap = partial(reap_everything, engine, info, instance, cgroups)
        reaped = await reap()
        self._stack.push_async_callback(reap)  # undone last to first: containers before the image they use
        armed = self._armed or await ArmedObservers.open()
        if self._armed is None:
            self._stack.callback(armed.close)
        canary = await self._stack.enter_async_context(Canary(cgroups))
        rig = Rig(config, engine, info, instance, cgroups, image, armed, canary, reaped, self._alive)
        rig.remarks += chosen.remarks
        rig.boot_id = await asyncio.to_thread(kernel.boot_id)
        self.begun = WARM_UP_CONTAINERS
        await rig.warm_up()
        return rig

    async def _image(self, engine: Engine) -> str:
        wanted = self._config.workload.image
        if wanted:
            await engine.require_image(wanted)
            return wanted
        program = await _own_program()

        async def remove() -> None:
            await tell_failure(engine.remove_image(image_reference(program)))

        self._stack.push_async_callback(remove)
        return await engine.prepare_image(program)


async def _own_program() -> bytes:
    return await asyncio.to_thread(lambda: binary("workload").read_bytes())
