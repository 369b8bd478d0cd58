"""The status file as an outlet: written at each beat, and every few seconds during a trial."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kickwatch import __version__
from kickwatch.node.processes import start_ticks
from kickwatch.outlets import events
from kickwatch.outlets.events import Beat, OutletEvent
from kickwatch.outlets.live_figures import bill_status, stream_statuses, trial_status
from kickwatch.outlets.live_status import Progress, Rates, TrialStatus
from kickwatch.outlets.outlet import PlainOutlet
from kickwatch.outlets.status import STATUS_PATH, Status, write

if TYPE_CHECKING:
    from kickwatch.detect.state import StreamFigures
    from kickwatch.model import Condition
    from kickwatch.outlets.belief import Belief

PERIOD_S = 5.0
ReadRates = Callable[[], Awaitable[Rates | None]]


async def no_rates() -> Rates | None:
    """For a daemon whose observers are not asked."""
    return None


class StatusFileOutlet(PlainOutlet):
    """Writes the file that `kickwatch status` and `kickwatch watch` read."""

    def __init__(self, path: Path = STATUS_PATH, rates: ReadRates = no_rates, period_s: float = PERIOD_S) -> None:
        """`path` is replaced at each beat, and every `period_s` once the first session is about to start."""
        self._path = path
        self._read_rates = rates
        self._period_s = period_s
        self._condition: Condition | None = None
        self._since_unix_s = 0.0
        self._started_unix_s = time.time()
        self._start_ticks: int | None = None
        self._believe: Callable[[], Belief] | None = None
        self._look: Callable[[], Progress] | None = None
        self._figures: Mapping[str, StreamFigures] = {}
        self._trial: TrialStatus | None = None
        self._void_trial: TrialStatus | None = None
        self._rates: Rates | None = None
        self._writing = asyncio.Lock()  # beats and the timer write the same file
        self._timer: asyncio.Task[None] | None = None

    async def take(self, event: OutletEvent) -> None:
        """Keep what the file shows; write the file, if it is a beat."""
        match event:
            case Beat():
                await self._write(event.belief, event.doing)
            case events.EvidenceOpened():
                self._figures, self._believe = event.figures, event.believe
            case events.TrialTaken():
                self._figures = event.figures
                self._add(trial_status(event.trial, event.outcome))
            case events.PassiveTaken():
                self._figures = event.figures
            case events.PassiveSummary():
                self._add(bill_status({**event.fields, "started_unix_s": time.time()}))
            case events.ProgressOpened():
                self._look = event.look
                self._timer = asyncio.create_task(self._write_periodically())

    async def close(self) -> None:
        """Stop the timer. The file stays, and shows what was last known."""
        if self._timer is not None:
            self._timer.cancel()
            with suppress(asyncio.CancelledError):
                await self._timer

    def _add(self, trial: TrialStatus) -> None:
        if trial.void:
            self._void_trial = trial
        else:
            self._trial, self._void_trial = trial, None

    async def _write_periodically(self) -> None:
        """There is no beat during a trial. A figure that the kernel refuses is left out."""
        while True:
            self._rates = await self._read_rates()
            if self._believe is not None:
                await self._write(self._believe(), None)
            await asyncio.sleep(self._period_s)

    async def _write(self, belief: "Belief", doing: str | None) -> None:
        """Write the file. `doing`: the status line; None for the one of the progress."""
        progress = self._look() if self._look is not None else None
        if doing is None:
            doing = progress.doing if progress is not None else ""
        elif progress is not None:
            progress = replace(progress, doing=doing)
        async with self._writing:
            if self._start_ticks is None:
                self._start_ticks = await asyncio.to_thread(start_ticks, "self")
            await asyncio.to_thread(write, self._status(belief, doing, progress), self._path)

    def _status(self, belief: "Belief", doing: str, progress: Progress | None) -> Status:
        now_unix_s = time.time()
        if belief.condition != self._condition:
            self._condition, self._since_unix_s = belief.condition, now_unix_s
        return Status(
            pid=os.getpid(),
            version=__version__,
            condition=belief.condition,
            condition_since_unix_s=self._since_unix_s,
            doing=doing,
            updated_unix_s=now_unix_s,
            trials=belief.trials,
            containers=belief.containers,
            alerts={alarm.value: streams for alarm, streams in belief.alerted.items()},
            reasons=belief.reasons,
            verdict_age_s=belief.verdict_age_s,
            more_containers=belief.more_containers,
            started_unix_s=self._started_unix_s,
            start_ticks=self._start_ticks,
            control_passed=belief.control_passed,
            progress=progress,
            streams=stream_statuses(self._figures),
            rates=self._rates,
            trial=self._trial,
            void_trial=self._void_trial,
        )
