"""An engine that is ready for containers: its name and version, the image, and the cgroup above the containers."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.errors import ImageAbsentError
from kickwatch.experiment.clean_up import log_failure
from kickwatch.native import binary
from kickwatch.node.cgroups import Cgroups, CgroupVersion, enabled_controllers
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.churn import BroadcastCounter, Churn, ChurnPlan
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.image import image_reference
from kickwatch.workload.knobs import Knobs
from kickwatch.workload.names import cgroup_parent


@dataclass(frozen=True)
class EngineSetup:
    """Makes the churns that the configuration asks for."""

    config: Config
    engine: Engine
    info: EngineInfo
    instance: str
    cgroups: Cgroups
    image: str

    @property
    def parent_name(self) -> str:
        """The cgroup parent in the form that the engine expects."""
        return self.info.cgroup_parent or cgroup_parent(self.info.cgroup_driver)

    @property
    def parent_memcg(self) -> Path:
        """The memcg directory above our containers."""
        return self.cgroups.memory_root / self.parent_name.lstrip("/")

    def containers_have_memcgs(self) -> bool:
        """True if the parent cgroup is in the memory hierarchy, and on v2 gives its children memory cgroups.

        The engine makes it with the first container. Blocks.
        """
        if self.cgroups.version is CgroupVersion.V1:
            return self.parent_memcg.is_dir()
        return "memory" in enabled_controllers(self.parent_memcg)

    @property
    def endpoint(self) -> Path:
        """The engine's socket, or its program if it has no daemon."""
        return Path(self.info.endpoint or self.config.engine.socket)

    @property
    def own_image(self) -> bool:
        """True if our own program runs in the containers, False for a user's image."""
        return not self.config.workload.image

    def plan(self, trial_id: str, containers: int) -> ChurnPlan:
        """The churn that the configuration asks for."""
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
        """The kmem knobs that the configuration asks for."""
        workload = self.config.workload
        return Knobs(
            kmem_limit_bytes=workload.kmem_limit_bytes,
            kmem_tcp_limit_bytes=workload.kmem_tcp_limit_bytes,
            parent=self.parent_memcg,
        )

    def churn(self, plan: ChurnPlan, knobs: Knobs, after: BroadcastCounter) -> Churn:
        """A churn of that plan. `after`: see Churn."""
        barrier = Barrier(
            self.cgroups,
            self.parent_memcg,
            own_program=self.own_image,
            runtime=f"{self.info} with the runtime {self.info.runtime}",
            runtimes=self.info.runtimes,
        )
        return Churn(self.engine, plan, barrier, knobs, after, record=ContainerRecord())

    async def restore_image(self) -> str:
        """Restore our own image if it was removed. Returns a text about it, empty if nothing was done.

        Raises ImageAbsentError for a user's image, which only the user can restore.
        """
        try:
            await self.engine.require_image(self.image)
        except ImageAbsentError:
            if not self.own_image:
                raise
            await self.engine.prepare_image(await own_program())
            return f"the image {self.image} was removed, completely or in part: restored"
        return ""


async def own_program() -> bytes:
    """The program that runs in our own image."""
    return await asyncio.to_thread(lambda: binary("workload").read_bytes())


async def present_image(engine: Engine, wanted: str, stack: AsyncExitStack) -> str:
    """The user's image `wanted`, or without one our own, which `stack` removes again.

    Raises ImageAbsentError if the user's image is absent.
    """
    if wanted:
        await engine.require_image(wanted)
        return wanted
    program = await own_program()
    reference = image_reference(program)  # the stack keeps what `remove` uses: not the program's 0.8 MB

    async def remove() -> None:
        await log_failure(engine.remove_image(reference))

    stack.push_async_callback(remove)
    return await engine.prepare_image(program)
