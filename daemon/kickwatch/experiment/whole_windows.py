"""A trial's comparison as two windows of equal length, one with all containers and one without, in random order.

The churn window includes the time in which the kernel's asynchronous work runs out: until the creation path has sent no
broadcast for two seconds, or until `settle_s` is over. If the quiet window comes first, that length is not known yet:
it gets the expected length, and the shorter window is then extended until both are equal.

Work that containers leave for later, by seconds, falls into the churn window: only these trials can see that it comes
with containers. What comes at once is found much sooner by pairs of halves (`paired_halves`).
"""

import random
from dataclasses import dataclass

from kickwatch.detect.figures import merge_windows
from kickwatch.experiment.steps import RunPhase
from kickwatch.experiment.trial_context import STILL_S, Compared, TrialContext
from kickwatch.model import Container, Window, WindowKind

EXPECTED_CONTAINER_S = 0.35
_EQUAL_WITHIN_S = 0.05


def order_of(seed: int) -> tuple[WindowKind, WindowKind]:
    """The order of the two windows; the same seed always gives the same order."""
    order = [WindowKind.CHURN, WindowKind.QUIET]
    random.Random(seed).shuffle(order)  # noqa: S311 -- an experiment's order, not a secret
    return order[0], order[1]


async def whole_windows(context: TrialContext) -> Compared:
    """Measure both windows."""
    return await _Windows(context).run()


@dataclass(frozen=True)
class _Churned:
    """The churn window, with its containers."""

    window: Window
    containers: tuple[Container, ...]
    quiesced: bool


@dataclass(frozen=True)
class _Windows:
    context: TrialContext

    async def run(self) -> Compared:
        order = order_of(self.context.settings.seed)
        if order[0] is WindowKind.CHURN:
            churned = await self._churn(0.0, then_s=self._expected_s())
            quiet = await self._quiet(churned.window.duration_ns / 1e9)
        else:
            quiet = await self._quiet(self._expected_s(), then_s=self._expected_s())
            churned = await self._churn(quiet.duration_ns / 1e9)
            missing_s = (churned.window.duration_ns - quiet.duration_ns) / 1e9
            if missing_s > _EQUAL_WITHIN_S:
                quiet = merge_windows([quiet, await self._quiet(missing_s)])
        return Compared(churned.window, quiet, churned.containers, order, churned.quiesced)

    def _expected_s(self) -> float:
        """The expected length of the churn window, as measured on idle nodes."""
        settings = self.context.settings
        lives_s = settings.containers * (EXPECTED_CONTAINER_S + settings.hold_s) / settings.concurrency
        return max(settings.window_s, lives_s + STILL_S)

    async def _quiet(self, duration_s: float, then_s: float = 0.0) -> Window:
        """`then_s`: how long the other window will take."""
        context = self.context
        context.step(RunPhase.QUIET, f"quiet window, {duration_s:.1f} s", left_s=duration_s + then_s)
        before = await context.observers.sample()
        await context.wait(duration_s)
        return context.observers.window(WindowKind.QUIET, before, await context.observers.sample())

    async def _churn(self, at_least_s: float, then_s: float = 0.0) -> _Churned:
        context, settings = self.context, self.context.settings
        left_s = max(at_least_s, self._expected_s()) + then_s
        context.step(RunPhase.CONTAINERS, f"churn window, {settings.containers} containers", left_s=left_s)
        before = await context.observers.sample()
        containers = await context.workload.churn(settings.containers)
        quiesced = await context.settle()
        elapsed_s = context.clock.monotonic_s() - before.at_ns / 1e9
        await context.wait(max(at_least_s, settings.window_s) - elapsed_s)
        after = await context.observers.sample()
        return _Churned(context.observers.window(WindowKind.CHURN, before, after), containers, quiesced)
