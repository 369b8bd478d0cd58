"""The script of one trial: a churn and a quiet window of equal length in random order, then a canary batch.

The churn window includes the time in which the kernel's asynchronous work runs out: until the creation path has sent no
broadcast for two seconds, or until `settle_s` is over. If the quiet window comes first, that length is not known yet:
it gets the expected length, and the shorter window is then extended until both are equal.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from kickwatch.detect.figures import merge_windows
from kickwatch.experiment.kmem_accounting import kmem_accounting
from kickwatch.experiment.ports import Clock, TrialObservers, TrialSettings, TrialWorkload
from kickwatch.model import CanaryBatch, Container, Disturbance, Origin, Trial, Window, WindowKind
from kickwatch.process.cancellation import run_shielded

STILL_S = 2.0
_POLL_S = 0.25
_SLICE_S = 5.0
_EXPECTED_CONTAINER_S = 0.35
_EQUAL_WITHIN_S = 0.05

Progress = Callable[[str], None]


async def run_trial(
    settings: TrialSettings,
    observers: TrialObservers,
    workload: TrialWorkload,
    clock: Clock,
    *,
    progress: Progress = lambda _text: None,
    alive: Callable[[], None] = lambda: None,
) -> Trial:
    """Run one trial and return its record. `progress` gets a text at each step; `alive` is called while it waits.

    Raises KickwatchError or OSError if it cannot be completed. However it ends, no container and no canary batch is
    left, and `workload.begun` is the number of containers requested from the engine.
    """
    return await _Script(settings, observers, workload, clock, progress, alive).run()


def order_of(seed: int) -> tuple[WindowKind, WindowKind]:
    """The order of the two windows; the same seed always gives the same order."""
    order = [WindowKind.CHURN, WindowKind.QUIET]
    random.Random(seed).shuffle(order)  # noqa: S311 -- an experiment's order, not a secret
    return order[0], order[1]


@dataclass(frozen=True)
class _Churned:
    """The churn window. `quiesced`: two seconds without a broadcast of the creation path came before `settle_s`."""

    window: Window
    containers: tuple[Container, ...]
    quiesced: bool


@dataclass(frozen=True)
class _Script:
    settings: TrialSettings
    observers: TrialObservers
    workload: TrialWorkload
    clock: Clock
    progress: Progress
    alive: Callable[[], None]

    async def run(self) -> Trial:
        await self.workload.restore()
        started_unix_s = self.clock.unix_s()
        before = await self.workload.moment()
        await self.observers.between_windows()
        churned, quiet = await self._windows()
        canary = await self._canary()
        disturbances = before.disturbances(await self.workload.moment())
        await self.workload.reclaim()  # after all windows: removing memcgs may broadcast on a healthy kernel
        return await self._record(started_unix_s, churned, quiet, canary, disturbances)

    async def _record(
        self,
        started_unix_s: float,
        churned: _Churned,
        quiet: Window,
        canary: CanaryBatch | None,
        disturbances: tuple[Disturbance, ...],
    ) -> Trial:
        void = (*disturbances, *_disturbances(churned.window), *_disturbances(quiet))
        return Trial(
            trial_id=self.settings.trial_id,
            seed=self.settings.seed,
            order=order_of(self.settings.seed),
            started_unix_s=started_unix_s,
            node=await self.workload.node(),
            observers=self.observers.rungs,
            churn=churned.window,
            quiet=quiet,
            containers=churned.containers,
            canary=canary,
            kmem_accounting=kmem_accounting(churned.containers, await self.workload.kmem_facts()),
            concurrency=self.settings.concurrency,
            unsettled=not churned.quiesced,
            control=self.observers.control,
            slab_mutex_known=self.observers.slab_mutex_known,
            void=",".join(dict.fromkeys(void)),
            notes=(*self.observers.losses, *self.workload.notes),
        )

    async def _windows(self) -> tuple[_Churned, Window]:
        if order_of(self.settings.seed)[0] is WindowKind.CHURN:
            churned = await self._churn(0.0)
            return churned, await self._quiet(churned.window.duration_ns / 1e9)
        quiet = await self._quiet(self._expected_s())
        churned = await self._churn(quiet.duration_ns / 1e9)
        missing_s = (churned.window.duration_ns - quiet.duration_ns) / 1e9
        if missing_s > _EQUAL_WITHIN_S:
            quiet = merge_windows([quiet, await self._quiet(missing_s)])
        return churned, quiet

    def _expected_s(self) -> float:
        """The expected length of the churn window, as measured on idle nodes."""
        settings = self.settings
        lives_s = settings.containers * (_EXPECTED_CONTAINER_S + settings.hold_s) / settings.concurrency
        return max(settings.window_s, lives_s + STILL_S)

    async def _quiet(self, duration_s: float) -> Window:
        self.progress(f"quiet window, {duration_s:.1f} s")
        before = await self.observers.sample()
        await self._wait(duration_s)
        return self.observers.window(WindowKind.QUIET, before, await self.observers.sample())

    async def _wait(self, seconds: float) -> None:
        """Wait in slices, and call `alive` after each: a window can be longer than the watchdog's timeout."""
        until_s = self.clock.monotonic_s() + seconds
        while (left_s := until_s - self.clock.monotonic_s()) > 0:
            await self.clock.sleep(min(left_s, _SLICE_S))
            self.alive()

    async def _churn(self, at_least_s: float) -> _Churned:
        settings = self.settings
        self.progress(f"churn window, {settings.containers} containers")
        before = await self.observers.sample()
        containers = await self.workload.churn(settings.containers)
        quiesced = await self._settle()
        elapsed_s = self.clock.monotonic_s() - before.at_ns / 1e9
        await self._wait(max(at_least_s, settings.window_s) - elapsed_s)
        after = await self.observers.sample()
        return _Churned(self.observers.window(WindowKind.CHURN, before, after), containers, quiesced)

    async def _settle(self) -> bool:
        """Wait until the creation path has sent no broadcast for two seconds; False if `settle_s` passed first."""
        now_s = self.clock.monotonic_s()
        deadline_s = now_s + self.settings.settle_s
        still_since_s, last = now_s, self.observers.creation_broadcasts()
        while (now_s := self.clock.monotonic_s()) < still_since_s + STILL_S:
            if now_s > deadline_s:
                return False
            await self.clock.sleep(_POLL_S)
            self.alive()
            count = self.observers.creation_broadcasts()
            if count != last:
                still_since_s, last = self.clock.monotonic_s(), count
        return True

    async def _canary(self) -> CanaryBatch | None:
        """A batch of bare memcgs between two samples. It is removed later, which may broadcast on a healthy kernel."""
        memcgs = self.settings.canary_memcgs
        if not memcgs:
            return None
        self.progress(f"canary, {memcgs} memory cgroups")
        before = await self.observers.sample()
        try:
            await self.workload.create_batch(memcgs)
            after = await self.observers.sample()
            window = self.observers.window(WindowKind.CANARY, before, after)
        finally:
            await run_shielded(self.workload.remove_batch())  # also if a second cancellation comes during the removal
        lost, stackless = self.observers.requests_lost(before, after)
        return CanaryBatch(
            memcgs=memcgs,
            duration_ns=window.duration_ns,
            interrupts=window.interrupts,
            cells=window.cells,
            lost_events=lost,
            stackless_events=stackless,
        )


def _disturbances(window: Window) -> tuple[Disturbance, ...]:
    """Those of the window, plus `tracing_toggled` if a tracer broadcast: another process switched it on or off."""
    toggled = any(cell.origin is Origin.TRACING and cell.broadcasts for cell in window.cells)
    return (*window.disturbances, Disturbance.TRACING_TOGGLED) if toggled else window.disturbances
