"""What every part of a trial's script uses: the ports, waiting, and settling."""

from collections.abc import Callable
from dataclasses import dataclass

from kickwatch.experiment.ports import Clock, TrialObservers, TrialSettings, TrialWorkload
from kickwatch.experiment.steps import Progress, RunPhase, RunStep
from kickwatch.model import Container, Pair, Window, WindowKind

STILL_S = 2.0
_POLL_S = 0.25
_SLICE_S = 5.0
_AFTER_S = 1.5  # the canary, and removing what is left; measured


@dataclass(frozen=True)
class Compared:
    """What a trial compares: a window with containers and one without.

    `order`: of the two windows, or of the first two halves. `quiesced`: two seconds without a broadcast of the creation
    path came before `settle_s`. `pairs` is empty where the windows are not divided.
    """

    churn: Window
    quiet: Window
    containers: tuple[Container, ...]
    order: tuple[WindowKind, WindowKind]
    quiesced: bool
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class TrialContext:
    """The ports of one trial."""

    settings: TrialSettings
    observers: TrialObservers
    workload: TrialWorkload
    clock: Clock
    progress: Progress
    alive: Callable[[], None]

    def step(self, phase: RunPhase, text: str = "", *, done: int = 0, left_s: float = 0.0) -> None:
        """Report a step. `left_s`: what is left of the comparison; what follows it is added."""
        left_s += 0.0 if phase is RunPhase.CANARY else STILL_S
        self.progress(RunStep(phase, text, done, self.settings.containers, left_s + _AFTER_S))

    async def wait(self, seconds: float) -> None:
        """Wait. Does nothing for a time that is over."""
        await self.wait_until(self.clock.monotonic_s() + seconds)

    async def wait_until(self, until_s: float) -> None:
        """Wait in slices, and call `alive` after each: a window can be longer than the watchdog's timeout."""
        while (left_s := until_s - self.clock.monotonic_s()) > 0:
            await self.clock.sleep(min(left_s, _SLICE_S))
            self.alive()

    async def settle(self) -> bool:
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
