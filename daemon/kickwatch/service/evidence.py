"""The evidence of a running daemon: each trial steps the detectors, and is kept with their new state in one go."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.state import Figures, State, TrialOutcome
from kickwatch.history.backlog import Entry
from kickwatch.history.history import AppendResult, History, Note, StoredEvidence
from kickwatch.journal.journal import Event, logger
from kickwatch.model import Trial
from kickwatch.service.pace import pace_of


@dataclass
class Evidence:
    """The detectors, what they know, and where that is kept. Construct with `open`.

    `unread`: there may be evidence of an earlier daemon that could not be read; it is asked for again before the first
    trial, and given up then.
    """

    monitor: Monitor
    history: History
    state: State
    saved: bytes = b""
    unread: bool = False
    kept: bool = True  # whether the newest trial is in the history

    @classmethod
    async def open(cls, config: Config) -> "Evidence":
        """Continue where the last daemon stopped; what of its evidence cannot be used is logged."""
        monitor, history = Monitor(pace_of(config)), History(Path(config.state.directory))
        evidence = cls(monitor, history, monitor.start())
        evidence._restore(await asyncio.to_thread(history.load))
        return evidence

    async def adopted(self, config: Config) -> "Evidence":
        """The same evidence under another configuration: only the thresholds, which follow from the pace, are new.

        No evidence is read from the disk. Where state.directory is another, the evidence and what waits to be kept go
        along, and are written there at once; what is there already stays, and is not used.
        """
        pace, directory = pace_of(config), Path(config.state.directory)
        monitor = self.monitor if pace == self.monitor.pace else Monitor(pace)
        if directory == self.history.path.parent:
            return replace(self, monitor=monitor)
        history = self.history.moved(directory)
        if self.unread:
            what = f"{self.history.path} cannot be read: what earlier daemons knew is not used in {directory}"
            logger().warning(Event.EVIDENCE_DROPPED, what=what)
        await _settle_in(history, self.saved)
        return replace(self, monitor=monitor, history=history, unread=False)

    async def take(self, trial: Trial) -> TrialOutcome:
        """What the trial says, given all before it. It is kept whether it is valid or void."""
        if self.unread:
            await self._read_again()
        before = self.saved
        self.state, outcome = self.monitor.step(self.state, trial)
        self.saved = save(self.monitor, self.state)
        entry = Entry(trial, before, outcome, self.saved, self.monitor.pace)
        kept = await asyncio.to_thread(self.history.append, entry)
        self.kept = kept.kept
        _log(kept)
        return outcome

    @property
    def figures(self) -> dict[str, Figures]:
        """Every stream; empty before the first trial."""
        return self.monitor.figures(self.state)

    async def close(self) -> None:
        """Try once more to keep what could not be kept; what is lost with this daemon is logged."""
        _log(await asyncio.to_thread(self.history.flush))

    def _restore(self, found: StoredEvidence) -> None:
        _say(found.notes)
        self.saved, self.unread = found.state, found.unread
        if not found.state:
            return
        self.state, lost = restore(self.monitor, found.state)
        for what in lost:
            logger().warning(Event.EVIDENCE_DROPPED, what=what)

    async def _read_again(self) -> None:
        self._restore(await asyncio.to_thread(self.history.load))
        if self.unread:
            self.unread = False
            what = f"{self.history.path} cannot be read: what earlier daemons knew is not used"
            logger().warning(Event.EVIDENCE_DROPPED, what=what)


async def _settle_in(history: History, saved: bytes) -> None:
    """Begin in another directory with the evidence `saved`."""
    found = await asyncio.to_thread(history.load)
    _say(found.notes)
    if found.state not in {b"", saved}:
        what = f"the evidence in {history.path} is not used: that of the running daemon continues there"
        logger().warning(Event.EVIDENCE_DROPPED, what=what)
    if saved:
        _log(await asyncio.to_thread(lambda: history.append(carried=saved)))


def _log(kept: AppendResult) -> None:
    _say(kept.notes)
    if kept.resumed is not None:
        logger().info(
            Event.HISTORY_RESUMED,
            appended=kept.resumed.appended,
            trials_lost=kept.resumed.lost,
            troubled_s=kept.resumed.troubled_s,
        )


def _say(notes: Iterable[Note]) -> None:
    for note in notes:
        logger().error(Event.HISTORY_TROUBLE, what=note.what, remedy=note.remedy, aside=note.aside)
