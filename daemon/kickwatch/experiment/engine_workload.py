"""The workload of one trial on a real engine and a real kernel: containers, and the canary's memory cgroups."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kickwatch.experiment.engine_setup import EngineSetup
from kickwatch.experiment.kmem_accounting import KmemFacts
from kickwatch.experiment.own_work import OwnWork, Work
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.remark import Remark, texts_of
from kickwatch.model import Container, Node
from kickwatch.node import kernel
from kickwatch.node.cgroups import CgroupVersion, nokmem, reclaim
from kickwatch.node.continuity import Moment, moment
from kickwatch.observe.observatory import Observatory
from kickwatch.workload.canary import Canary
from kickwatch.workload.churn import BroadcastCounter, Churn

SETTLE_S = 1.0  # asynchronous work of what was just made must not fall into a window


@dataclass
class EngineWorkload:
    """Implements `ports.TrialWorkload`, for one trial."""

    setup: EngineSetup
    canary: Canary
    trial_id: str
    creation_broadcasts: Callable[[], int | None]
    read_node: Callable[[], Node]  # blocks
    kernel_memory_paid: bool = False  # a bare memcg was charged
    setup_remarks: Sequence[Remark] = ()
    containers: int = 0  # of the whole trial
    own: OwnWork = field(default_factory=OwnWork)  # counts what reaches isolated CPUs meanwhile
    observatory: Observatory | None = None  # armed
    reclaims: bool = True  # whether the memory of dying memcgs is reclaimed after this trial
    remarks: list[Remark] = field(default_factory=list)  # of this trial
    _churn: Churn | None = field(default=None, init=False)

    @property
    def begun(self) -> int:
        """Containers requested from the engine so far."""
        return self._churn.attempted if self._churn is not None else 0

    @property
    def notes(self) -> list[str]:
        """The remarks about the setup and about this trial."""
        return texts_of((*self.setup_remarks, *self.remarks))

    async def restore(self) -> None:
        """Restore what other processes have removed, and log each. The engine restores its cgroup parent by itself.

        Raises KickwatchError or OSError if something cannot be restored, for example a user's image.
        """
        restored = [what for what in (await self.setup.restore_image(), await self.canary.restore()) if what]
        for what in restored:
            logger().info(Event.RESTORED, what=what)
        if restored:
            await asyncio.sleep(SETTLE_S)

    async def churn(self, containers: int) -> tuple[Container, ...]:
        """Run that many more containers of the configured churn. See `Churn.run`."""
        if self._churn is None:
            plan = self.setup.plan(self.trial_id, max(self.containers, containers))
            self._churn = self.setup.churn(plan, self.setup.knobs(), broadcasts_since(self.creation_broadcasts))
        done = await self._churn.run(containers)
        self.remarks = self._churn.remarks
        return done

    async def create_batch(self, memcgs: int) -> None:
        """See Canary.create_batch."""
        async with self.own.during(Work.CANARY, self.observatory):
            await self.canary.create_batch(memcgs)

    async def remove_batch(self) -> None:
        """See Canary.remove_batch."""
        async with self.own.during(Work.CANARY, self.observatory):
            await self.canary.remove_batch()

    async def reclaim(self) -> None:
        """Reclaim the memory of dying memcgs below our cgroup parent, if `reclaims`."""
        if self.reclaims:
            async with self.own.during(Work.RECLAIM, self.observatory):
                _ = await asyncio.to_thread(reclaim, self.setup.parent_memcg)  # the next trial tries the rest again

    async def moment(self) -> Moment:
        """What must not change during the trial: the engine, the CPUs, the time spent in suspend."""
        return await asyncio.to_thread(moment, self.setup.endpoint)

    async def node(self) -> Node:
        """Where the trial runs."""
        return await asyncio.to_thread(self.read_node)

    async def kmem_facts(self) -> KmemFacts:
        """What the node says about kernel memory accounting."""
        return KmemFacts(
            disabled=nokmem(await asyncio.to_thread(kernel.command_line)),
            deferred=self.setup.cgroups.version is CgroupVersion.V2,
            paid=self.kernel_memory_paid,
            own_memcgs=await asyncio.to_thread(self.setup.containers_have_memcgs),
        )


def broadcasts_since(total: Callable[[], int | None]) -> BroadcastCounter:
    """A function that returns how much `total` rose since its previous call; None if `total` is unknown."""
    last = total()

    async def rise() -> int | None:
        nonlocal last
        before, last = last, total()
        return None if before is None or last is None else last - before

    return rise
