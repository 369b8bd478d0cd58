"""Everything a trial needs, set up once and taken down whatever happens: engine, image, cgroups, observers, warm-up."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kickwatch.config import Config
from kickwatch.errors import CgroupError, EngineError, KickwatchError
from kickwatch.model import Node
from kickwatch.native import binary
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, nokmem, reclaim
from kickwatch.observe.observatory import Observatory
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.canary import Canary
from kickwatch.workload.churn import Churn, Plan
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.knobs import Knobs
from kickwatch.workload.names import CGROUP_NAME, cgroup_parent, new_trial_id, read_instance
from kickwatch.workload.reaper import reap_cgroups, reap_containers

_WARM_UP_MEMCGS = 5
_WARM_UP_SETTLE_S = 1.0
_CLEAN_UP_S = 60.0


@dataclass
class Laboratory:
    """An armed node. Use as `async with Laboratory.open(config) as laboratory`."""

    config: Config
    engine: Engine
    info: EngineInfo
    instance: str
    cgroups: Cgroups
    image: str
    observatory: Observatory
    canary: Canary
    notes: list[str] = field(default_factory=list)

    @property
    def parent_name(self) -> str:
        """The cgroup parent as the engine is told."""
        return cgroup_parent(self.info.cgroup_driver)

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
            boot_id=kernel.boot_id(),
            rcu_expedited=kernel.rcu_expedited(),
        )

    def plan(self, trial_id: str, containers: int) -> Plan:
        """The churn the configuration asks for."""
        workload = self.config.workload
        own = ("--deadline-ms", str(int((workload.hold_s + self.config.engine.timeout_s) * 1000)))
        return Plan(
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

    def churn(self, plan: Plan, knobs: Knobs) -> Churn:
        """A churn of that plan, with the creation path read after each container."""
        barrier = Barrier(self.cgroups, self.parent_memcg, own_program=self.own_image)

        async def broadcasts() -> int | None:
            return self.observatory.creation_broadcasts()

        return Churn(self.engine, plan, barrier, knobs, broadcasts)

    async def reclaim(self) -> None:
        """Push the dying memcgs below our own parent out, so that churn does not pile them up."""
        _ = await asyncio.to_thread(reclaim, self.parent_memcg)  # what stays is tried again after the next trial

    async def warm_up(self) -> None:
        """One container and a few bare memcgs without limits: the first kmem memcg of a boot flips static keys."""
        plan = self.plan(new_trial_id(), 1)
        knobs = Knobs(parent=self.parent_memcg)
        (container,) = await self.churn(plan, knobs).run()
        if container.failure:
            self.notes.append(f"warm-up: {container.failure}")
        await self.canary.create_batch(_WARM_UP_MEMCGS)
        await self.canary.remove_batch()
        await asyncio.sleep(_WARM_UP_SETTLE_S)

    @classmethod
    def open(cls, config: Config) -> "_Opening":
        """Set everything up; on the way out containers, cgroups, image and probes are gone again."""
        return _Opening(config)


class _Opening:
    """The two-phase start and the bounded stop of a Laboratory."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Laboratory:
        try:
            return await self._set_up()
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(asyncio.wait_for(self._stack.aclose(), _CLEAN_UP_S))

    async def _set_up(self) -> Laboratory:
        config = self._config
        cgroups = await asyncio.to_thread(Cgroups.read)
        engine = DockerEngine(
            config.engine.socket, timeout_s=config.engine.timeout_s, workers=config.workload.concurrency + 1
        )
        self._stack.push_async_callback(engine.close)
        info = await engine.info()
        instance = await asyncio.to_thread(read_instance)
        await self._arrange_reaping(engine, info, instance, cgroups)
        image = await self._image(engine)
        observatory = await Observatory.open()
        self._stack.callback(observatory.close)
        canary = await self._stack.enter_async_context(Canary(cgroups))
        laboratory = Laboratory(config, engine, info, instance, cgroups, image, observatory, canary)
        await laboratory.warm_up()
        return laboratory

    async def _arrange_reaping(self, engine: Engine, info: EngineInfo, instance: str, cgroups: Cgroups) -> None:
        """Remove what an earlier kickwatch left, now, and what we leave, at the end."""
        names = (CGROUP_NAME, f"{CGROUP_NAME}.slice") if info.cgroup_driver == "cgroupfs" else ()

        async def reap() -> None:
            with suppress(EngineError):
                await reap_containers(engine, instance)
            with suppress(CgroupError):
                await asyncio.to_thread(reap_cgroups, cgroups, names)

        await reap()
        self._stack.push_async_callback(reap)

    async def _image(self, engine: Engine) -> str:
        wanted = self._config.workload.image
        if wanted:
            await engine.require_image(wanted)
            return wanted
        program = await asyncio.to_thread(lambda: binary("workload").read_bytes())
        image = await engine.prepare_image(program)

        async def remove() -> None:
            with suppress(KickwatchError):
                await engine.remove_image(image)

        self._stack.push_async_callback(remove)
        return image
