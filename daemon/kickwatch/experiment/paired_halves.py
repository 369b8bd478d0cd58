"""A trial's comparison as pairs of halves of equal length: one with the whole life of a container, one without.

A coin decides for each pair which half comes first, after the length of its halves was fixed. The observers are read at
the planned edges, whatever the container does. So if containers make no difference, each pair's difference has either
sign with the same probability, however the background behaves and however long containers live: `detect.pairs` bets on
that. In concurrent churn, a burst of containers takes the place of the container.

A container that outlasts its half ends in the other half, or after the pair; what is left of its life after the pair
belongs to the churn window. So does the time in which the kernel's work runs out after the last pair.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kickwatch.detect.classes import flips_allowed
from kickwatch.detect.figures import merge_windows
from kickwatch.experiment.half_figures import half_figures, with_attributed
from kickwatch.experiment.half_length import HalfLength
from kickwatch.experiment.steps import RunPhase
from kickwatch.experiment.trial_context import STILL_S, Compared, TrialContext
from kickwatch.model import Container, Node, Pair, Window, WindowKind
from kickwatch.observe.windows import Sample
from kickwatch.process.cancellation import run_shielded

CHURN_FIRST = (WindowKind.CHURN, WindowKind.QUIET)


def coins_of(seed: int, pairs: int) -> tuple[bool, ...]:
    """For each pair, whether the half with containers comes first; the same seed always gives the same coins."""
    coins = random.Random(seed)  # noqa: S311 -- an experiment's order, not a secret
    return tuple(coins.random() < 0.5 for _ in range(pairs))


def bursts_of(containers: int, concurrency: int) -> tuple[int, ...]:
    """How many containers each pair has."""
    full, rest = divmod(containers, concurrency)
    return (concurrency,) * full + ((rest,) if rest else ())


async def paired_halves(context: TrialContext) -> Compared:
    """Measure all pairs. Their coins are those of the trial's seed."""
    settings = context.settings
    bursts = bursts_of(settings.containers, settings.concurrency)
    # With the settling at the end, the trial takes at least as long as one with two windows of `window_s`.
    least_s = max(0.0, settings.window_s - STILL_S / 2) / len(bursts)
    halves = _Halves(context, HalfLength(settings.life_s, least_s), await context.workload.node())
    return await halves.run(bursts, coins_of(settings.seed, len(bursts)))


class _Burst:
    """The containers of one pair. `start` once."""

    def __init__(self, context: TrialContext, containers: int) -> None:
        self._context, self._containers = context, containers
        self._task: asyncio.Task[tuple[Container, ...]] | None = None
        self._began_s = self._ended_s = 0.0

    @property
    def running(self) -> bool:
        """True from the start to the end of the last life."""
        return self._task is not None and not self._task.done()

    @property
    def life_s(self) -> float:
        """From the start to the end of the last life, once it has ended."""
        return self._ended_s - self._began_s

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._live())

    async def containers(self) -> tuple[Container, ...]:
        """The containers, once all lives have ended."""
        if self._task is None:
            raise RuntimeError("no container was started (a bug)")
        return await self._task

    async def stop(self) -> None:
        """End lives that still go on; no container is left."""
        if self._task is None:
            return
        self._task.cancel()
        await run_shielded(asyncio.wait([self._task]))
        if not self._task.cancelled():
            self._task.exception()  # a failure of both is reported once

    async def _live(self) -> tuple[Container, ...]:
        self._began_s = self._context.clock.monotonic_s()
        try:
            return await self._context.workload.churn(self._containers)
        finally:
            self._ended_s = self._context.clock.monotonic_s()


@asynccontextmanager
async def _burst(context: TrialContext, containers: int) -> AsyncIterator[_Burst]:
    burst = _Burst(context, containers)
    try:
        yield burst
    except BaseException:
        await burst.stop()
        raise


@dataclass
class _Halves:
    """The halves so far."""

    context: TrialContext
    length: HalfLength
    node: Node
    churn: list[Window] = field(default_factory=list)
    quiet: list[Window] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    async def run(self, bursts: Sequence[int], coins: Sequence[bool]) -> Compared:
        context = self.context
        halves = f"{len(bursts)} pairs of halves of about {self.length.seconds():.2f} s"
        text = f"churn window, {sum(bursts)} containers, and quiet window in {halves}"
        context.step(RunPhase.CONTAINERS, text, left_s=self._left_s(len(bursts)))
        edge = await context.observers.sample()
        for containers, churn_first in zip(bursts, coins, strict=True):
            edge = await self._pair(edge, containers, self.length.seconds(), churn_first=churn_first)
            left_s = self._left_s(len(bursts) - len(self.pairs))
            context.step(RunPhase.CONTAINERS, done=len(self.containers), left_s=left_s)
        quiesced = await context.settle()
        self._note(WindowKind.CHURN, edge, await context.observers.sample())
        churn, quiet = with_attributed(merge_windows(self.churn), merge_windows(self.quiet))
        return Compared(
            churn=churn,
            quiet=quiet,
            containers=tuple(self.containers),
            order=CHURN_FIRST if coins[0] else CHURN_FIRST[::-1],
            quiesced=quiesced,
            pairs=tuple(self.pairs),
        )

    def _left_s(self, pairs: int) -> float:
        """How long that many more pairs take."""
        return pairs * 2 * self.length.seconds()

    async def _pair(self, begin: Sample, containers: int, half_s: float, *, churn_first: bool) -> Sample:
        """Measure one pair from the sample at its beginning on; returns the sample at its end."""
        context, begin_s = self.context, begin.at_ns / 1e9
        async with _burst(context, containers) as burst:
            if churn_first:
                burst.start()
            await context.wait_until(begin_s + half_s)
            outlasted = burst.running
            middle = await context.observers.sample()
            if not churn_first:
                burst.start()
            await context.wait_until(begin_s + 2 * half_s)
            running = burst.running
            end = await context.observers.sample()
            lived = await burst.containers()
        if not any(container.failure for container in lived):
            self.length.add(burst.life_s)
        self.containers += lived
        first, second = CHURN_FIRST if churn_first else CHURN_FIRST[::-1]
        halves = {first: self._note(first, begin, middle), second: self._note(second, middle, end)}
        self.pairs.append(
            Pair(
                churn_first=churn_first,
                half_ns=round(half_s * 1e9),
                churn=half_figures(halves[WindowKind.CHURN], context.observers, flips_allowed(self.node, containers)),
                quiet=half_figures(halves[WindowKind.QUIET], context.observers),
                containers=sum(not container.failure for container in lived),
                outlasted=outlasted or running,
            )
        )
        return await self._after(end) if running else end

    async def _after(self, end: Sample) -> Sample:
        """The rest of a life that went on after its pair."""
        after = await self.context.observers.sample()
        self._note(WindowKind.CHURN, end, after)
        return after

    def _note(self, kind: WindowKind, before: Sample, after: Sample) -> Window:
        window = self.context.observers.window(kind, before, after)
        (self.churn if kind is WindowKind.CHURN else self.quiet).append(window)
        return window
