"""The script of one trial: containers and no containers, compared, then a canary batch.

Most trials compare pairs of halves (`paired_halves`), some two whole windows (`whole_windows`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from kickwatch.experiment.kmem_accounting import kmem_accounting
from kickwatch.experiment.paired_halves import paired_halves
from kickwatch.experiment.ports import Clock, TrialObservers, TrialSettings, TrialWorkload
from kickwatch.experiment.steps import Progress, RunPhase
from kickwatch.experiment.trial_context import Compared, TrialContext
from kickwatch.experiment.whole_windows import whole_windows
from kickwatch.model import CanaryBatch, Disturbance, Origin, Trial, Window, WindowKind
from kickwatch.process.cancellation import run_shielded


async def run_trial(
    settings: TrialSettings,
    observers: TrialObservers,
    workload: TrialWorkload,
    clock: Clock,
    *,
    progress: Progress = lambda _step: None,
    alive: Callable[[], None] = lambda: None,
) -> Trial:
    """Run one trial and return its record. `progress` gets each step; `alive` is called while it waits.

    Raises KickwatchError or OSError if it cannot be completed. However it ends, no container and no canary batch is
    left, and `workload.begun` is the number of containers requested from the engine.
    """
    return await _Script(TrialContext(settings, observers, workload, clock, progress, alive)).run()


@dataclass(frozen=True)
class _Script:
    context: TrialContext

    async def run(self) -> Trial:
        workload, observers = self.context.workload, self.context.observers
        await workload.restore()
        started_unix_s = self.context.clock.unix_s()
        before = await workload.moment()
        await observers.between_windows()
        compared = await (paired_halves if self.context.settings.paired else whole_windows)(self.context)
        canary = await self._canary()
        disturbances = before.disturbances(await workload.moment())
        await workload.reclaim()  # after all windows: removing memcgs may broadcast on a healthy kernel
        return await self._record(started_unix_s, compared, canary, disturbances)

    async def _record(
        self,
        started_unix_s: float,
        compared: Compared,
        canary: CanaryBatch | None,
        disturbances: tuple[Disturbance, ...],
    ) -> Trial:
        settings, observers, workload = self.context.settings, self.context.observers, self.context.workload
        void = (*disturbances, *disturbances_of(compared.churn), *disturbances_of(compared.quiet))
        return Trial(
            trial_id=settings.trial_id,
            seed=settings.seed,
            order=compared.order,
            started_unix_s=started_unix_s,
            node=await workload.node(),
            observers=observers.rungs,
            churn=compared.churn,
            quiet=compared.quiet,
            containers=compared.containers,
            canary=canary,
            kmem_accounting=kmem_accounting(compared.containers, await workload.kmem_facts()),
            concurrency=settings.concurrency,
            unsettled=not compared.quiesced,
            control=observers.control,
            slab_mutex_known=observers.slab_mutex_known,
            senders_known=observers.senders_known,
            pairs=compared.pairs,
            isolated_cpus=observers.isolated_cpus,
            void=",".join(dict.fromkeys(void)),
            notes=(*observers.losses, *workload.notes),
        )

    async def _canary(self) -> CanaryBatch | None:
        """A batch of bare memcgs between two samples. It is removed later, which may broadcast on a healthy kernel."""
        context, memcgs = self.context, self.context.settings.canary_memcgs
        if not memcgs:
            return None
        context.step(RunPhase.CANARY, f"canary, {memcgs} memory cgroups", done=context.settings.containers)
        before = await context.observers.sample()
        try:
            await context.workload.create_batch(memcgs)
            after = await context.observers.sample()
            window = context.observers.window(WindowKind.CANARY, before, after)
        finally:
            await run_shielded(context.workload.remove_batch())  # also after a second cancellation
        lost, stackless = context.observers.requests_lost(before, after)
        return CanaryBatch(
            memcgs=memcgs,
            duration_ns=window.duration_ns,
            interrupts=window.interrupts,
            cells=window.cells,
            lost_events=lost,
            stackless_events=stackless,
        )


def disturbances_of(window: Window) -> tuple[Disturbance, ...]:
    """Those of the window, plus `tracing_toggled` if a tracer broadcast: another process switched it on or off."""
    toggled = any(cell.origin is Origin.TRACING and cell.broadcasts for cell in window.cells)
    return (*window.disturbances, Disturbance.TRACING_TOGGLED) if toggled else window.disturbances
