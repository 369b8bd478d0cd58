"""Figures for others: Prometheus metrics where they are on, and the hourly summary in the log."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from kickwatch import __version__
from kickwatch.alert.bill import Bill
from kickwatch.alert.journal import Event, logger
from kickwatch.config import MetricsConfig
from kickwatch.detect.state import Outcome
from kickwatch.errors import AddressTakenError, ConfigError, KickwatchError, ObserveError
from kickwatch.model import Trial
from kickwatch.observe.observatory import Observatory
from kickwatch.watch import Watch

if TYPE_CHECKING:  # the library costs memory: it is loaded only where metrics are on
    from kickwatch.evidence import Evidence
    from kickwatch.metrics.registry import Metrics
    from kickwatch.metrics.serve import Server, Textfile


class Telemetry:
    """Takes what happens and shows it. Every method is cheap and none raises."""

    def __init__(self, observatory: Observatory) -> None:
        """`observatory` is read at each scrape, trials or not."""
        self._observatory = observatory
        self._bill = Bill()
        self._since = asyncio.get_running_loop().time()
        self._metrics: Metrics | None = None
        self._server: Server | None = None
        self._textfile: Textfile | None = None
        self._written_at = 0.0
        self._wanted: MetricsConfig | None = None  # what could not be served yet
        self._tried_at = 0.0
        self._evidence_of: Evidence | None = None

    async def begin(self, config: MetricsConfig) -> None:
        """As `open`, yet an address that somebody else holds is said and tried again: the watch matters more."""
        try:
            await self.open(config)
        except AddressTakenError as error:
            logger().warning(Event.NOTE, what=f"{error}; it is tried again")
            self._wanted = config
            self._tried_at = asyncio.get_running_loop().time()

    async def _try_again(self, config: MetricsConfig) -> None:
        try:
            await self.open(config)
        except ConfigError:  # taken still, or gone with its interface
            self._wanted = config
        else:
            logger().warning(Event.NOTE, what=f"metrics.listen: {config.listen} is free now, metrics are served")

    async def open(self, config: MetricsConfig) -> None:
        """Serve as configured; called again after a reload. The series go on. Raises ConfigError, address taken."""
        await self.close()
        self._wanted = None
        if not config.enabled:
            return
        from kickwatch.metrics.registry import Metrics  # noqa: PLC0415 -- loaded where used
        from kickwatch.metrics.serve import Server, Textfile  # noqa: PLC0415

        metrics = self._metrics
        if metrics is None:
            metrics = await asyncio.to_thread(Metrics, __version__)
        server = Server(metrics, config.listen, self.refresh)
        await server.start()
        self._metrics, self._server = metrics, server
        self._textfile = Textfile(metrics, config.textfile) if config.textfile else None

    async def close(self) -> None:
        """Serve no more."""
        async with AsyncExitStack() as stack:
            if self._server is not None:
                stack.push_async_callback(self._server.close)
            self._server = self._textfile = None

    async def refresh(self) -> None:
        """Bring the observers' cumulative figures up to date."""
        if self._metrics is not None:
            from kickwatch.metrics.live import live_of  # noqa: PLC0415 -- as above

            self._metrics.observe(live_of(self._observatory, await self._observatory.sample()))

    def trial(self, trial: Trial, outcome: Outcome, watch: Watch) -> None:
        """One more trial was taken."""
        self._bill.add(trial, outcome)
        if self._metrics is not None:
            self._metrics.trial(trial, outcome, watch.evidence.monitor.figures(watch.evidence.state))

    def off(self, reason: str) -> None:
        """No trials are made because the node is `drained`, or kickwatch `passive`; with an empty string they are."""
        if self._metrics is not None:
            self._metrics.trials_off(reason)

    def failed(self) -> None:
        """A trial could not be made."""
        if self._metrics is not None:
            self._metrics.failed()

    def reaped(self, containers: int) -> None:
        """So many left-overs were removed."""
        if self._metrics is not None:
            self._metrics.reaped(containers)

    def pauses(self, causes: tuple[str, ...]) -> None:
        """The guard's pause began."""
        if self._metrics is not None:
            for cause in causes:
                self._metrics.pauses(cause)

    def paused(self, causes: tuple[str, ...], seconds: float) -> None:
        """It lasted so much longer."""
        self._bill.paused(seconds)
        if self._metrics is not None:
            for cause in causes:
                self._metrics.paused(cause, seconds)

    async def beat(self, watch: Watch, summary_period_s: float | None) -> None:
        """What is due by now: condition, control, textfile, the summary of the period (None: somebody else's)."""
        now = asyncio.get_running_loop().time()
        if self._metrics is not None:
            self._metrics.control(watch.eyes.control.passed)
            self._metrics.condition(watch.condition)
            if self._evidence_of is not watch.evidence:  # a start or a reload: as the last daemon left it
                self._evidence_of = watch.evidence
                self._metrics.evidence(watch.evidence.monitor.figures(watch.evidence.state))
        if self._wanted is not None and now - self._tried_at >= _LISTEN_EVERY_S:
            self._tried_at = now
            await self._try_again(self._wanted)
        if self._textfile is not None and now - self._written_at >= _TEXTFILE_EVERY_S:
            self._written_at = now
            await self._write(self._textfile)
        if summary_period_s is not None and now - self._since >= summary_period_s:
            logger().info(Event.SUMMARY, condition=watch.condition, **self._bill.take(now - self._since))
            self._since = now

    async def _write(self, textfile: "Textfile") -> None:
        """A full disk must not end the watch; it is said, and tried again."""
        try:
            await self._refresh_for_file()
            await textfile.write()
        except (KickwatchError, OSError) as error:
            logger().warning(Event.NOTE, what=f"metrics.textfile cannot be written ({error})")

    async def _refresh_for_file(self) -> None:
        """As a scrape has it: with a reading that is refused the file is written all the same, and says so."""
        try:
            await self.refresh()
        except ObserveError:
            if self._metrics is not None:
                self._metrics.stale(refused=True)


_TEXTFILE_EVERY_S = 15.0
_LISTEN_EVERY_S = 30.0
