"""When the next trial may begin: not while drained, paused by the guard, over budget, or before its pause is over."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.rig import Rig
from kickwatch.journal.journal import Event, logger
from kickwatch.node.pressure import DyingMemcgs, read_pressure
from kickwatch.process.sd_notify import Notifier
from kickwatch.process.signals import Switches
from kickwatch.service.budget import jittered
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.guard import Decision, Guard
from kickwatch.service.telemetry import Telemetry

Beat = Callable[[], Awaitable[None]]


class Schedule:
    """Decides, waits, and says why it waits. One per configuration; each decision feeds the watchdog."""

    def __init__(
        self,
        config: Config,
        ledger: BudgetLedger,
        switches: Switches,
        notifier: Notifier,
        telemetry: Telemetry,
        *,
        guard: Guard | None = None,
    ) -> None:
        """`ledger` knows what was spent before this daemon was started; `guard` goes on where there was one."""
        self._config = config
        self._ledger = ledger
        self._switches = switches
        self._notifier = notifier
        self._telemetry = telemetry
        self._guard = guard or Guard(config.guard, config.budget.preset)
        self._dying: DyingMemcgs | None = None
        self._pressed = Guard(config.guard, config.budget.preset)
        self._budget = ""  # why the pause before the next trial is longer than asked
        self.due_at = 0.0

    def rest(self) -> None:
        """A trial has ended: the next is due after the pause and its jitter."""
        self._due_in(self._config.trial.interval_s)

    def _due_in(self, seconds: float) -> None:
        """And the jitter's share of it longer: nodes that wait for the same do not go on at the same moment."""
        pause_s = jittered(seconds, self._config.trial.jitter, random.random())  # noqa: S311 -- no secret
        self.due_at = asyncio.get_running_loop().time() + pause_s

    async def until_due(self, rig: Rig, beat: Beat) -> bool:
        """True when a trial may begin, False when a reload is asked for first. `beat` is awaited at each look."""
        while not self._switches.reload_asked:
            self._notifier.progress()
            await beat()
            held = await self._held(rig)
            if held is None:
                return not self._switches.reload_asked
            seconds, why = held
            self._notifier.status(why)
            await self._switches.sleep(min(seconds, self._config.guard.poll_s))
        return False

    async def _held(self, rig: Rig) -> tuple[float, str] | None:
        """(seconds, why) to wait, or None."""
        if drained := await self._drained_words():
            return self._config.guard.poll_s, drained
        pause_s = self.due_at - asyncio.get_running_loop().time()
        if pause_s > 0:
            return pause_s, self._budget or "between two trials"
        wait = self._ledger.wait(self._config.workload.containers_per_trial)
        if wait.seconds > 0:
            # Looking costs CPU time: looked at again and again in short waits, the share would never be earned.
            pause_s = max(wait.seconds, self._config.guard.poll_s)
            self._due_in(pause_s)
            self._budget = f"budget: {wait.why}"
            return pause_s, self._budget
        self._budget = ""
        return await self._guarded(rig)

    async def held_before(self, containers: int) -> str:
        """Why so many containers may not be started now, before there is a rig; empty where they may."""
        if drained := await self._drained_words():
            return drained
        wait = self._ledger.wait(containers)
        if wait.seconds > 0:
            return f"budget: {wait.why}"
        pressed = await self.pressed()
        return f"paused: {pressed}" if pressed else ""

    async def _drained_words(self) -> str:
        by = await self.drained()
        return f"drained by {by}: no containers are started" if by else ""

    async def drained(self) -> str:
        """Who drained the node, if anybody did; each change is said once."""
        by = await self._switches.drained_by()
        if by and not self._switches.drain_reported:
            logger().info(Event.DRAINED, by=by)
        if self._switches.drain_reported and not by:
            logger().info(Event.UNDRAINED, by=self._switches.drain_reported)
        if by != self._switches.drain_reported:
            self._telemetry.off("drained" if by else "")
        self._switches.drain_reported = by
        return by

    async def _guarded(self, rig: Rig) -> tuple[float, str] | None:
        if not self._config.guard.enabled:
            self._telemetry.guarded(())  # a reload may have ended a pause this way
            return None
        self._dying = self._dying or DyingMemcgs(rig.cgroups)
        running = await _running(rig)
        pressure = await asyncio.to_thread(read_pressure, Path(rig.info.root), running, self._dying)
        return self._say(self._guard.look(pressure, time.monotonic()))

    async def pressed(self) -> str:
        """What presses the node before there is a rig, as far as no engine has to be asked; empty for nothing.

        A pause that goes on from before a reload is not said again.
        """
        if not self._config.guard.enabled:
            self._telemetry.guarded(())
            return ""
        decision = self._pressed.look(await asyncio.to_thread(read_pressure, None, None, None), time.monotonic())
        if not self._guard.paused:
            self._say(decision)
        return decision.what if decision.paused else ""

    def _say(self, decision: Decision) -> tuple[float, str] | None:
        causes = tuple(cause.value for cause in decision.causes)
        self._telemetry.guarded(causes if decision.paused else ())
        if decision.began:
            logger().warning(Event.PAUSED, reasons=list(causes), what=decision.what)
            self._telemetry.pauses(causes)
        elif decision.paused or decision.ended:
            self._telemetry.paused(causes, decision.lasted_s)
        if decision.ended:
            logger().info(Event.RESUMED, paused_s=round(decision.paused_s, 1))
        return (self._config.guard.poll_s, f"paused: {decision.what}") if decision.paused else None


async def _running(rig: Rig) -> int | None:
    """Containers on the node; an engine that does not tell is found out by the trial."""
    try:
        return await rig.engine.count_running()
    except KickwatchError:
        return None
