"""When the next trial may begin: not while drained, not before it is due, not over budget, not while the guard pauses.

One for each session. What outlives the session (the time the next trial is due, the guard's pause, the drain) is in the
daemon's state.
"""

from kickwatch.configuration.types import Config
from kickwatch.service.budget import jittered
from kickwatch.service.drain import drained_text
from kickwatch.service.experiments import SessionRig
from kickwatch.service.parts import Parts


class Schedule:
    """Decides, waits, and shows in the status line why it waits. Each decision feeds the watchdog."""

    def __init__(self, config: Config, parts: Parts) -> None:
        """For the trials of one session."""
        self._config = config
        self._parts = parts
        self._state = parts.state
        self._state.budget_until_s = 0.0  # the limits may be others now
        self._budget_text = ""

    def rest(self) -> None:
        """A trial has ended: the next one is due after the configured interval and its jitter."""
        self._state.due_s = self._after(self._config.trial.interval_s)

    def _after(self, seconds: float) -> float:
        """The time `seconds` from now, later by a random share: nodes that wait for the same thing spread out."""
        return self._parts.now_s() + jittered(seconds, self._config.trial.jitter, self._parts.draw())

    async def until_due(self, rig: SessionRig) -> bool:
        """Wait until a trial may begin. False if a reload is requested first."""
        parts = self._parts
        while not parts.switches.reload_asked:
            parts.heartbeat.progress()
            await parts.beat(self._config)
            blocked = await self._blocked(rig)
            if blocked is None:
                return not parts.switches.reload_asked
            seconds, reason = blocked
            parts.heartbeat.status(reason)
            await parts.switches.sleep(min(seconds, self._config.guard.poll_s))
        return False

    async def _blocked(self, rig: SessionRig) -> tuple[float, str] | None:
        """(seconds to wait at most, reason); None if a trial may begin."""
        poll_s, now_s = self._config.guard.poll_s, self._parts.now_s()
        if by := await self._state.drain.look():
            return poll_s, drained_text(by)
        if (pause_s := max(self._state.due_s, self._state.budget_until_s) - now_s) > 0:
            return pause_s, self._budget_text or "between two trials"
        wait = self._parts.ledger.wait(self._config.workload.containers_per_trial)
        if wait.seconds > 0:
            # Each look costs CPU time. Looks in quick succession could cost more than the budget's CPU share grants.
            pause_s = max(wait.seconds, poll_s)
            self._state.budget_until_s, self._budget_text = self._after(pause_s), f"budget: {wait.why}"
            return pause_s, self._budget_text
        self._budget_text = ""
        pressed = await self._pressed(rig)
        return (poll_s, f"paused: {pressed}") if pressed else None

    async def blocked_before(self, containers: int) -> str:
        """Reason starting `containers` is blocked, before an engine answers; empty if allowed."""
        if by := await self._state.drain.look():
            return drained_text(by)
        wait = self._parts.ledger.wait(containers)
        if wait.seconds > 0:
            return f"budget: {wait.why}"
        pressed = await self._pressed(None)
        return f"paused: {pressed}" if pressed else ""

    async def _pressed(self, rig: SessionRig | None) -> str:
        """Why the guard pauses trials; empty if it does not. Without a rig, from what needs no engine."""
        guard = self._state.guard
        if not self._config.guard.enabled:
            await guard.off()  # a reload may have ended a pause this way
            return ""
        if rig is None:
            return await guard.look_without_engine(await self._parts.experiments.pressure())
        return await guard.look(await rig.pressure())
