"""One trial: a churn and a quiet window of equal length in random order, and a canary batch.

The settle time, in which asynchronous work of the kernel runs out, belongs to the churn window: it ends when the
creation path has been still for two seconds, or at `settle_s`. A quiet window that comes first cannot know that
length; it is made as long as expected, and whichever window is shorter is topped up, so that both are equal.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kickwatch.detect.figures import merge_windows
from kickwatch.experiment.rig import Rig
from kickwatch.journal.remark import Remark, texts_of
from kickwatch.model import CanaryBatch, Container, Disturbance, KmemAccounting, Origin, Trial, Window, WindowKind
from kickwatch.node.cgroups import CgroupVersion
from kickwatch.node.continuity import moment
from kickwatch.workload.names import new_trial_id

STILL_S = 2.0
_POLL_S = 0.25
_SLICE_S = 5.0
_EXPECTED_CONTAINER_S = 0.35

Progress = Callable[[str], None]


@dataclass
class TrialRun:
    """One trial under way."""

    rig: Rig
    containers: int
    progress: Progress
    number: int = 0
    trial_id: str = field(default_factory=new_trial_id)
    unsettled: bool = False
    begun: int = 0  # containers that the engine was asked for, however the trial ends
    remarks: list[Remark] = field(default_factory=list)

    async def run(self) -> Trial:
        """Run it to its end and write it down."""
        rig = self.rig
        await rig.restore()
        # Each trial of a daemon has an order of its own, also under a fixed seed; the seed logged repeats this one.
        seed = (rig.config.trial.seed or secrets.randbits(32)) + self.number
        order = [WindowKind.CHURN, WindowKind.QUIET]
        random.Random(seed).shuffle(order)  # noqa: S311 -- an experiment's order, not a secret
        started = time.time()
        begun = await asyncio.to_thread(moment, rig.endpoint)
        await rig.observatory.between_windows()
        churn, quiet, done = await self._windows(order)
        canary = await self._canary()
        disturbances = begun.disturbances(await asyncio.to_thread(moment, rig.endpoint))
        await rig.reclaim()  # outside every window: removing memcgs may broadcast lawfully
        return Trial(
            trial_id=self.trial_id,
            seed=seed,
            order=tuple(order),
            started_unix_s=started,
            node=await asyncio.to_thread(rig.node),
            observers=rig.observatory.observers,
            churn=churn,
            quiet=quiet,
            containers=done,
            canary=canary,
            kmem_accounting=kmem_accounting(
                done,
                disabled=await asyncio.to_thread(rig.kmem_disabled),
                deferred=rig.cgroups.version is CgroupVersion.V2,
                paid=rig.kernel_memory_paid,
            ),
            concurrency=rig.plan(self.trial_id, self.containers).concurrency,
            unsettled=self.unsettled,
            control=rig.control,
            slab_mutex_known=rig.observatory.slab_mutex_known,
            void=",".join(dict.fromkeys((*disturbances, *_disturbances(churn), *_disturbances(quiet)))),
            notes=(*rig.observatory.losses, *texts_of((*rig.remarks, *self.remarks))),
        )

    async def _windows(self, order: list[WindowKind]) -> tuple[Window, Window, tuple[Container, ...]]:
        if order[0] == WindowKind.CHURN:
            churn, done = await self._churn(0.0)
            return churn, await self._quiet(churn.duration_ns / 1e9), done
        quiet = await self._quiet(self._expected_s())
        churn, done = await self._churn(quiet.duration_ns / 1e9)
        missing_s = (churn.duration_ns - quiet.duration_ns) / 1e9
        if missing_s > 0.05:
            quiet = merge_windows([quiet, await self._quiet(missing_s)])
        return churn, quiet, done

    def _expected_s(self) -> float:
        """How long the churn window will take, as measured on idle nodes; the top-up corrects it."""
        plan = self.rig.plan(self.trial_id, self.containers)
        lives = self.containers * (_EXPECTED_CONTAINER_S + plan.hold_s) / plan.concurrency
        return max(self.rig.config.trial.window_s, lives + STILL_S)

    async def _quiet(self, duration_s: float) -> Window:
        self.progress(f"quiet window, {duration_s:.1f} s")
        observatory = self.rig.observatory
        before = await observatory.sample()
        await self._pass(duration_s)
        return observatory.window(WindowKind.QUIET, before, await observatory.sample())

    async def _pass(self, seconds: float) -> None:
        """Let time pass, in slices each of which says that the trial goes on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left_s := until - loop.time()) > 0:
            await asyncio.sleep(min(left_s, _SLICE_S))
            self.rig.alive()

    async def _churn(self, at_least_s: float) -> tuple[Window, tuple[Container, ...]]:
        self.progress(f"churn window, {self.containers} containers")
        rig = self.rig
        knobs = rig.knobs()
        before = await rig.observatory.sample()
        churn = rig.churn(rig.plan(self.trial_id, self.containers), knobs)
        try:
            done = await churn.run()
        finally:
            self.begun = churn.attempted
        self.remarks += knobs.remarks
        await self._settle()
        at_least_s = max(at_least_s, rig.config.trial.window_s)
        elapsed_s = (time.monotonic_ns() - before.at_ns) / 1e9
        await self._pass(at_least_s - elapsed_s)
        after = await rig.observatory.sample()
        return rig.observatory.window(WindowKind.CHURN, before, after), done

    async def _settle(self) -> None:
        """Wait until the creation path has been still for two seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.rig.config.trial.settle_s
        still_since, last = loop.time(), self.rig.observatory.creation_broadcasts()
        while loop.time() < still_since + STILL_S:
            if loop.time() > deadline:
                self.unsettled = True
                return
            await asyncio.sleep(_POLL_S)
            self.rig.alive()
            count = self.rig.observatory.creation_broadcasts()
            if count != last:
                still_since, last = loop.time(), count

    async def _canary(self) -> CanaryBatch | None:
        """A batch of bare memcgs between two samples; its removal is outside, since removing may broadcast lawfully."""
        memcgs = self.rig.config.trial.canary_memcgs
        if not memcgs:
            return None
        self.progress(f"canary, {memcgs} memory cgroups")
        observatory = self.rig.observatory
        before = await observatory.sample()
        try:
            await self.rig.canary.create_batch(memcgs)
            after = await observatory.sample()
            window = observatory.window(WindowKind.CANARY, before, after)
        finally:
            await self.rig.canary.remove_batch()
        lost, stackless = observatory.requests_lost(before, after)
        return CanaryBatch(
            memcgs=memcgs,
            duration_ns=window.duration_ns,
            interrupts=window.interrupts,
            cells=window.cells,
            lost_events=lost,
            stackless_events=stackless,
        )


def _disturbances(window: Window) -> tuple[Disturbance, ...]:
    """Those of the window; switching another process's tracer broadcasts, so that is one as well."""
    toggled = any(cell.origin is Origin.TRACING and cell.broadcasts for cell in window.cells)
    return (*window.disturbances, Disturbance.TRACING_TOGGLED) if toggled else window.disturbances


def kmem_accounting(
    containers: tuple[Container, ...], *, disabled: bool, deferred: bool, paid: bool = False
) -> KmemAccounting:
    """What the containers' own memcgs say: on when each that could be read was charged kernel memory.

    `deferred`: the figure is one of cgroup v2's statistics, which are brought up to date every two seconds, or after as
    many changes as grow with the number of CPUs ("memcg: infrastructure to flush memcg stats", 5.15). There a young
    container's zero proves nothing, and the switch is the boot's: one that was charged tells for all, and so does
    `paid`, that a bare memcg's parent was. A user's container may end before its memcg is read; ours waits at its
    barrier.
    """
    if disabled:
        return KmemAccounting.OFF
    read = [container.kmem_bytes for container in containers if not container.failure]
    known = [kmem_bytes for kmem_bytes in read if kmem_bytes is not None]
    if not known:
        return KmemAccounting.UNKNOWN
    if deferred:
        return KmemAccounting.ON if paid or any(known) else KmemAccounting.UNKNOWN
    return KmemAccounting.ON if all(known) else KmemAccounting.OFF
