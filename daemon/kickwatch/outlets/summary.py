"""The summary as an outlet: one record a period with the bill of its trials."""

import time
from collections.abc import Callable

from kickwatch.configuration.types import Config
from kickwatch.journal.journal import Event, logger
from kickwatch.outlets.belief import Belief, belief_fields
from kickwatch.outlets.bill import Bill
from kickwatch.outlets.events import Beat, GuardPaused, OutletEvent, PassiveSummary, PausePhase, TrialTaken
from kickwatch.outlets.outlet import PlainOutlet


class SummaryOutlet(PlainOutlet):
    """Adds trials and pauses up, and logs the sum once a period."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """The first period begins now."""
        self._now_s = now_s
        self._bill = Bill()
        self._since_s = now_s()
        self._spent_s = 0.0  # of a period, before passive mode interrupted it
        self._period_s: float | None = None  # None in passive mode, which adds up by itself

    async def start(self, config: Config) -> None:
        """The period as configured. Time in passive mode belongs to none of these periods."""
        before, self._period_s = self._period_s, config.service.summary_period_s if config.workload.enabled else None
        if before is not None and self._period_s is None:
            self._spent_s = self._now_s() - self._since_s
        elif before is None and self._period_s is not None:
            self._since_s = self._now_s() - self._spent_s

    async def reload(self, config: Config) -> None:
        """The period as configured; the sum so far stays."""
        await self.start(config)

    async def take(self, event: OutletEvent) -> None:
        """Add it to the sum; log what is due."""
        match event:
            case TrialTaken():
                self._bill.add(event.trial, event.outcome)
            case GuardPaused() if event.phase is not PausePhase.BEGAN:
                self._bill.paused(event.seconds)
            case Beat():
                self._log_if_due(event.belief)
            case PassiveSummary():
                logger().info(Event.SUMMARY, **belief_fields(event.belief), **event.fields)

    def _log_if_due(self, belief: Belief) -> None:
        elapsed_s = self._now_s() - self._since_s
        if self._period_s is not None and elapsed_s >= self._period_s:
            logger().info(Event.SUMMARY, **belief_fields(belief), **self._bill.take(elapsed_s))
            self._since_s = self._now_s()
