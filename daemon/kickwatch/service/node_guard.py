"""The guard of this node: decides from readings, reports its pauses, and keeps them across reloads."""

import time
from collections.abc import Callable

from kickwatch.configuration.types import GuardConfig, Preset
from kickwatch.node.pressure import Pressure
from kickwatch.outlets.events import GuardCalm, GuardPaused, PausePhase
from kickwatch.outlets.live_status import GuardStatus
from kickwatch.outlets.outlet import Report
from kickwatch.service.guard import Decision, Guard, shown_readings


class NodeGuard:
    """Two guards with the same thresholds: for all readings, and for those that need no engine.

    Before an engine answers, the number of containers and the engine's disk are unknown. The guard for all readings
    would keep a pause that they caused for as long as they are missing, and no session could start to read them.
    """

    def __init__(
        self, config: GuardConfig, preset: Preset, report: Report, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Under the preset `stress` the guard ignores what the churn itself causes."""
        self._report = report
        self._now_s = now_s
        self._key = config, preset
        self._with_engine, self._without_engine = Guard(config, preset), Guard(config, preset)
        self._latest: tuple[Pressure, str, float] | None = None  # of the last look: why trials pause, and when

    def configure(self, config: GuardConfig, preset: Preset) -> None:
        """Take these thresholds. A pause goes on if they are the same as before."""
        if self._key != (config, preset):
            self._key = config, preset
            self._with_engine, self._without_engine = Guard(config, preset), Guard(config, preset)
            self._latest = None

    @property
    def paused(self) -> bool:
        """True if the last decision was a pause."""
        return self._latest is not None and bool(self._latest[1])

    def status(self) -> GuardStatus:
        """The last decision, with what it was made from."""
        if self._latest is None:
            return GuardStatus()
        pressure, what, looked_s = self._latest
        return GuardStatus(
            paused=bool(what),
            what=what,
            readings=shown_readings(pressure, self._with_engine.thresholds),
            age_s=round(self._now_s() - looked_s, 1),
        )

    async def off(self) -> None:
        """Report that no guard pauses trials: it is disabled, or kickwatch is passive."""
        self._latest = None
        await self._report(GuardCalm())

    async def look(self, pressure: Pressure) -> str:
        """Why trials pause; empty if they do not."""
        return await self._reported(self._noted(pressure, self._with_engine.look(pressure, self._now_s())))

    async def look_without_engine(self, pressure: Pressure) -> str:
        """The same before an engine answers. A pause that goes on from before a reload is not reported again."""
        decision = self._noted(pressure, self._without_engine.look(pressure, self._now_s()))
        if not self._with_engine.paused:
            await self._reported(decision)
        return decision.what if decision.paused else ""

    def _noted(self, pressure: Pressure, decision: Decision) -> Decision:
        self._latest = pressure, decision.what if decision.paused else "", self._now_s()
        return decision

    async def _reported(self, decision: Decision) -> str:
        phase = _phase(decision)
        if phase is None:
            await self._report(GuardCalm())
        else:
            paused = GuardPaused(phase, decision.causes, decision.lasted_s, decision.paused_s, decision.what)
            await self._report(paused)
        return decision.what if decision.paused else ""


def _phase(decision: Decision) -> PausePhase | None:
    if decision.ended:
        return PausePhase.ENDED
    if decision.began:
        return PausePhase.BEGAN
    return PausePhase.CONTINUES if decision.paused else None
