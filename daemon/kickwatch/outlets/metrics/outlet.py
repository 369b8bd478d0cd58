"""Prometheus as an outlet: series served over HTTP, and written as a textfile, where metrics are on.

The Prometheus library costs memory: it is loaded only once metrics are on, and so are the modules that import it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from kickwatch import __version__
from kickwatch.configuration.types import Config, MetricsConfig
from kickwatch.errors import AddressUnusableError, ConfigError, ObserveError
from kickwatch.journal.journal import Event
from kickwatch.journal.trouble import TroubleLog
from kickwatch.model import AlarmKind
from kickwatch.observe.observatory import Observatory
from kickwatch.outlets import events
from kickwatch.outlets.metrics import left_textfile
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.without_openssl import load_prometheus_client

if TYPE_CHECKING:
    from kickwatch.detect.state import StreamFigures
    from kickwatch.outlets.belief import Belief
    from kickwatch.outlets.metrics.registry import Metrics
    from kickwatch.outlets.metrics.serve import Server
    from kickwatch.outlets.metrics.textfile import TextfileWriter

_LISTEN_EVERY_S = 30.0


class PrometheusOutlet:
    """Counts events in series, and serves these. The series live on when metrics are switched off and on again."""

    def __init__(self, observatory: Observatory) -> None:
        """`observatory` is read at each scrape, trials or not."""
        self._observatory = observatory
        self._metrics: Metrics | None = None
        self._server: Server | None = None
        self._textfile: TextfileWriter | None = None
        self._config: MetricsConfig | None = None  # in force
        self._state = Path()  # where it is recorded that a textfile is written
        self._retrying: asyncio.Task[None] | None = None  # an address that is in use, not on this node, or made again
        self._figures: Mapping[str, StreamFigures] = {}
        self._believe: Callable[[], Belief] | None = None
        self._address_trouble = TroubleLog(Event.METRICS_UNSERVED, Event.METRICS_SERVED)
        self._file_trouble = TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN)

    async def start(self, config: Config) -> None:
        """Serve as configured. An address that is in use, or not up yet (DHCP, a VLAN), is logged and tried again.

        Trials matter more than metrics.
        """
        await self._adopt_state(Path(config.state.directory))
        self._config = config.metrics
        await self._remove_left(config.metrics)
        await self._open(config.metrics)

    async def reload(self, config: Config) -> None:
        """Serve as configured from now on; an address is waited for as by `start`. Raises ConfigError."""
        if config.metrics != self._config:
            await self._open(config.metrics)
            self._config = config.metrics
        await self._adopt_state(Path(config.state.directory))  # last: a reload that is refused changes no directory

    async def _adopt_state(self, directory: Path) -> None:
        """Keep the record there from now on. At a reload, the textfile that is being written is on record at once."""
        if self._config is not None and directory != self._state:
            await asyncio.to_thread(left_textfile.carry, self._state, directory)
        self._state = directory

    async def _open(self, config: MetricsConfig) -> None:
        """Raises ConfigError."""
        await self.close()
        listen, textfile = (config.listen, config.textfile) if config.enabled else ("", "")
        if not listen:
            self._address_trouble.forget()
        if not textfile:
            self._file_trouble.forget()
        if not (listen or textfile):
            return
        load_prometheus_client()  # before the modules that import it
        if listen:
            await self._listen(listen)
        if textfile:  # it needs no address
            self._textfile = await self._write_to(textfile)

    async def _listen(self, listen: str) -> None:
        """Serve there, now or once that is possible. Raises ConfigError if it never is."""
        try:
            self._server = await self._serve(listen)
        except AddressUnusableError as error:
            self._address_trouble.failed(error.what, error.remedy)
        self._retrying = asyncio.create_task(self._keep_listening(listen))

    async def _keep_listening(self, listen: str) -> None:
        """Try again until it works, trials or not, and whenever the interface of the address is made again."""
        while self._server is None or self._server.has_interface:
            await asyncio.sleep(_LISTEN_EVERY_S)
            if self._server is None or self._server.interface_changed():
                await run_shielded(self._try_address(listen))  # a server that has begun to listen has to be closed

    async def _try_address(self, listen: str) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.close()
        try:
            self._server = await self._serve(listen)
        except ConfigError as error:  # perhaps for another reason than before
            self._address_trouble.failed(error.what, error.remedy)

    async def _serve(self, listen: str) -> "Server":
        from kickwatch.outlets.metrics.serve import Server  # noqa: PLC0415 -- loaded where metrics are on

        server = Server(await self._load_metrics(), listen, self.refresh)
        await server.start()
        self._address_trouble.works(listen=listen)
        return server

    async def _load_metrics(self) -> "Metrics":
        from kickwatch.outlets.metrics.registry import Metrics  # noqa: PLC0415 -- as above

        if self._metrics is None:
            self._metrics = await asyncio.to_thread(Metrics, __version__)
            self._metrics.evidence(self._figures)
            self._show_origin()
        return self._metrics

    async def _write_to(self, path: str) -> "TextfileWriter":
        from kickwatch.outlets.metrics.textfile import Textfile, TextfileWriter  # noqa: PLC0415 -- as above

        textfile = Textfile(await self._load_metrics(), path)
        await asyncio.to_thread(left_textfile.record, self._state, path)
        return TextfileWriter(textfile, self._refresh_for_file, self._file_trouble)

    async def close(self) -> None:
        """Stop serving, and remove the textfile."""
        async with AsyncExitStack() as stack:
            if self._retrying is not None:
                self._retrying.cancel()
                await asyncio.wait({self._retrying})
            if self._server is not None:
                stack.push_async_callback(self._server.close)
            if self._textfile is not None:
                stack.push_async_callback(self._remove_textfile, self._textfile)
            self._server = self._textfile = self._retrying = None

    async def _remove_textfile(self, textfile: "TextfileWriter") -> None:
        await textfile.close()
        await asyncio.to_thread(left_textfile.remove_left, self._state)

    async def _remove_left(self, config: MetricsConfig) -> None:
        """Remove the file that a killed daemon left, unless it is written again at once."""
        current = config.textfile if config.enabled else ""
        await asyncio.to_thread(left_textfile.remove_left, self._state, current)

    async def take(self, event: events.OutletEvent) -> None:
        """Count it."""
        match event:
            case events.EvidenceOpened():
                self._figures, self._believe = event.figures, event.believe
            case events.TrialTaken() | events.PassiveTaken():
                self._figures = event.figures
        if self._metrics is not None:
            _count(self._metrics, event)
            if isinstance(event, events.EvidenceOpened | events.TrialTaken):
                self._show_origin()
        if isinstance(event, events.Beat):
            self._show_belief()

    async def refresh(self) -> None:
        """Bring the observers' cumulative figures and the belief up to date. Raises ObserveError."""
        if self._metrics is not None:
            from kickwatch.outlets.metrics.live import live_of  # noqa: PLC0415 -- as above

            self._show_belief()  # there is no beat during a trial
            self._metrics.observe(live_of(self._observatory, await self._observatory.sample()))

    def _show_belief(self) -> None:
        metrics = self._metrics
        if metrics is None or self._believe is None:
            return
        belief = self._believe()
        metrics.control(belief.control_passed)
        metrics.condition(belief.condition, belief.reasons)
        metrics.verdict_age(belief.verdict_age_s)
        metrics.regressed(len(belief.alerted.get(AlarmKind.REGRESSED, ())))
        metrics.trouble("history", lasts=not belief.history_kept)
        metrics.trouble("textfile", lasts=self._file_trouble.lasts)

    def _show_origin(self) -> None:
        """What the figures of the streams are about, once they are shown and not with a belief that is ahead of them.

        The state of a trial is known before its figures arrive. A scrape in between would give the evidence about one
        kernel release to the next.
        """
        if self._metrics is not None and self._believe is not None:
            belief = self._believe()
            self._metrics.epoch(belief.published_since_unix_s)
            self._metrics.kernel(belief.release)

    async def _refresh_for_file(self) -> None:
        """As for a scrape: if the kernel refuses a reading, the file is written without it, and shows that."""
        try:
            await self.refresh()
        except ObserveError:
            if self._metrics is not None:
                self._metrics.stale(refused=True)


def _count(metrics: "Metrics", event: events.OutletEvent) -> None:
    match event:
        case events.EvidenceOpened() | events.PassiveTaken():
            metrics.evidence(event.figures)
        case events.TrialTaken():
            metrics.trial(event.trial, event.outcome, event.figures)
        case events.TrialFailed():
            metrics.failed()
        case events.Reaped():
            metrics.reaped(event.containers)
        case events.TrialsOff():
            metrics.trials_off(event.reason.value if event.reason else "")
        case events.Drained():
            metrics.trials_off(events.Off.DRAINED.value)
        case events.Undrained():
            metrics.trials_off("")
        case events.GuardPaused() | events.GuardCalm():
            _count_pause(metrics, event)
        case events.Beat():
            metrics.trouble("engine", lasts=event.engine_lost)
            metrics.trouble("budget", lasts=event.budget_unwritten)


def _count_pause(metrics: "Metrics", event: events.GuardPaused | events.GuardCalm) -> None:
    if isinstance(event, events.GuardCalm):
        metrics.guarded(())
        return
    metrics.guarded(() if event.phase is events.PausePhase.ENDED else event.causes)
    for cause in event.causes:
        if event.phase is events.PausePhase.BEGAN:
            metrics.pauses(cause)
        else:
            metrics.paused(cause, event.seconds)
