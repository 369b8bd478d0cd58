"""Figures for others: Prometheus metrics where they are on, and the hourly summary in the log."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from kickwatch import __version__
from kickwatch.configuration.types import MetricsConfig
from kickwatch.detect.state import TrialOutcome
from kickwatch.errors import AddressTakenError, ConfigError, KickwatchError, ObserveError
from kickwatch.journal.journal import Event, logger
from kickwatch.journal.trouble import TroubleLog
from kickwatch.model import AlarmKind, Trial
from kickwatch.observe.observatory import Observatory
from kickwatch.outlets.bill import Bill
from kickwatch.service.verdict_age import rounded
from kickwatch.service.watch import Watch

if TYPE_CHECKING:  # the library costs memory: it is loaded only where metrics are on
    from kickwatch.outlets.metrics.registry import Metrics
    from kickwatch.outlets.metrics.serve import Server, Textfile
    from kickwatch.service.evidence import Evidence


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
        self._watch: Watch | None = None  # what the newest beat was given
        self._address = TroubleLog(Event.METRICS_UNSERVED, Event.METRICS_SERVED)
        self._file = TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN)

    async def begin(self, config: MetricsConfig) -> None:
        """As `open`, but an address that another process holds is logged and tried again: the watch matters more."""
        self._tried_at = asyncio.get_running_loop().time()
        try:
            await self.open(config)
        except AddressTakenError as error:
            self._address.failed(error.what, error.remedy)
            await self._wait_for_address(config)

    async def _try_again(self, config: MetricsConfig) -> None:
        try:
            await self.open(config)
        except ConfigError:  # taken still, or gone with its interface
            await self._wait_for_address(config)

    async def _wait_for_address(self, config: MetricsConfig) -> None:
        """The textfile needs no address: it is written meanwhile."""
        self._wanted = config
        self._textfile = await self._textfile_of(config)

    async def open(self, config: MetricsConfig) -> None:
        """Serve as configured; called again after a reload. The series go on. Raises ConfigError, address taken."""
        await self.close()
        self._wanted = None
        if not config.enabled:
            self._address.forget()
            self._file.forget()
            return
        from kickwatch.outlets.metrics.serve import Server  # noqa: PLC0415 -- loaded where used

        server = Server(await self._made(), config.listen, self.refresh)
        await server.start()
        self._server = server
        self._address.works(listen=config.listen)
        self._textfile = await self._textfile_of(config)

    async def _made(self) -> "Metrics":
        from kickwatch.outlets.metrics.registry import Metrics  # noqa: PLC0415 -- as above

        if self._metrics is None:
            self._metrics = await asyncio.to_thread(Metrics, __version__)
        return self._metrics

    async def _textfile_of(self, config: MetricsConfig) -> "Textfile | None":
        from kickwatch.outlets.metrics.serve import Textfile  # noqa: PLC0415 -- as above

        if config.textfile:
            return Textfile(await self._made(), config.textfile)
        self._file.forget()
        return None

    async def close(self) -> None:
        """Serve no more."""
        async with AsyncExitStack() as stack:
            if self._server is not None:
                stack.push_async_callback(self._server.close)
            self._server = self._textfile = None

    async def refresh(self) -> None:
        """Bring the observers' cumulative figures up to date, and what the daemon believes."""
        if self._metrics is not None:
            from kickwatch.outlets.metrics.live import live_of  # noqa: PLC0415 -- as above

            if self._watch is not None:  # a trial may go on: there was no beat for a while
                self._show(self._metrics, self._watch)
            self._metrics.observe(live_of(self._observatory, await self._observatory.sample()))

    def trial(self, trial: Trial, outcome: TrialOutcome, watch: Watch) -> None:
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

    def guarded(self, causes: tuple[str, ...]) -> None:
        """The guard's pause goes on for these causes; with none of them there is no pause."""
        if self._metrics is not None:
            self._metrics.guarded(causes)

    def troubles(self, *, engine: bool, budget: bool) -> None:
        """Whether the engine is waited for, and whether what was spent cannot be written down."""
        if self._metrics is not None:
            self._metrics.trouble("engine", lasts=engine)
            self._metrics.trouble("budget", lasts=budget)

    def _show(self, metrics: "Metrics", watch: Watch) -> None:
        """What holds now."""
        evidence = watch.evidence
        metrics.control(watch.armed.control.passed)
        metrics.condition(watch.condition, watch.reasons)
        metrics.verdict_age(watch.verdict_age_s)
        metrics.regressed(len(evidence.state.alerted.get(AlarmKind.REGRESSED, ())))
        metrics.epoch(evidence.state.published_since_unix_s)
        metrics.trouble("history", lasts=not evidence.kept)
        metrics.trouble("textfile", lasts=self._file.lasts)
        if self._evidence_of is not evidence:  # a start or a reload: as the last daemon left it
            self._evidence_of = evidence
            metrics.evidence(evidence.monitor.figures(evidence.state))

    async def beat(self, watch: Watch, summary_period_s: float | None) -> None:
        """What is due by now: condition, control, textfile, the summary of the period (None: passive mode makes it)."""
        now = asyncio.get_running_loop().time()
        self._watch = watch
        if self._metrics is not None:
            self._show(self._metrics, watch)
        if self._wanted is not None and now - self._tried_at >= _LISTEN_EVERY_S:
            self._tried_at = now
            await self._try_again(self._wanted)
        if self._textfile is not None and now - self._written_at >= _TEXTFILE_EVERY_S:
            self._written_at = now
            await self._write(self._textfile)
        if summary_period_s is not None and now - self._since >= summary_period_s:
            logger().info(Event.SUMMARY, **belief(watch), **self._bill.take(now - self._since))
            self._since = now

    async def _write(self, textfile: "Textfile") -> None:
        """A full disk must not end the watch; it is logged, and tried again."""
        try:
            await self._refresh_for_file()
            await textfile.write()
        except KickwatchError as error:
            self._file.failed(error.what, error.remedy)
        except OSError as error:
            self._file.failed(f"metrics.textfile cannot be written ({error})", "it is tried again")
        else:
            self._file.works()

    async def _refresh_for_file(self) -> None:
        """As a scrape has it: with a reading that is refused the file is written all the same, and says so."""
        try:
            await self.refresh()
        except ObserveError:
            if self._metrics is not None:
                self._metrics.stale(refused=True)


def belief(watch: Watch) -> dict[str, Any]:
    """What the daemon believes, and how old that is: the first keys of `kickwatch.summary`."""
    return {
        "condition": watch.condition,
        "reasons": list(watch.reasons),
        "verdict_age_s": rounded(watch.verdict_age_s),
        "more_containers": watch.more_containers,
    }


_TEXTFILE_EVERY_S = 15.0
_LISTEN_EVERY_S = 30.0
