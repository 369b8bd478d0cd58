"""The evidence of a running daemon: each trial steps the detectors, and is stored together with their new state."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kickwatch.configuration.types import Config
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.state import State, StreamFigures, TrialOutcome
from kickwatch.history.backlog import Entry
from kickwatch.history.history import AppendResult, History, Note, StoredEvidence
from kickwatch.journal.journal import Event, logger
from kickwatch.model import Trial
from kickwatch.service.pace import pace_of


@dataclass
class Evidence:
    """The detectors, their state, and the history that stores it. Construct with `open`.

    `unread`: there may be evidence of an earlier daemon that could not be read. Before the first trial it is read once
    more, and given up if that fails.
    """

    monitor: Monitor
    history: History
    state: State
    saved: bytes = b""
    unread: bool = False
    kept: bool = True  # the newest trial is in the history

    @classmethod
    async def open(cls, config: Config) -> "Evidence":
        """Continue where the last daemon stopped. Evidence of it that cannot be used is logged."""
        monitor, history = Monitor(pace_of(config)), History(Path(config.state.directory))
        evidence = cls(monitor, history, monitor.start())
        evidence._restore(await asyncio.to_thread(history.load))
        return evidence

    async def adopted(self, config: Config) -> "Evidence":
        """The same evidence under another configuration: only the thresholds change, with the pace.

        No evidence is read from the disk. In another state.directory the evidence, and the trials that wait to be
        stored, are written at once; evidence that is there already stays, and is not used.
        """
        pace, directory = pace_of(config), Path(config.state.directory)
        monitor = self.monitor if pace == self.monitor.pace else Monitor(pace)
        if directory == self.history.path.parent:
            return replace(self, monitor=monitor)
        history = self.history.moved(directory)
        if self.unread:
            what = f"{self.history.path} cannot be read: the evidence of earlier daemons is not used in {directory}"
            logger().warning(Event.EVIDENCE_DROPPED, what=what)
        await _store_in(history, self.saved)
        return replace(self, monitor=monitor, history=history, unread=False)

    async def take(self, trial: Trial) -> TrialOutcome:
        """The outcome of the trial, given all before it. Valid or void, it is stored."""
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
    def figures(self) -> dict[str, StreamFigures]:
        """Every stream; empty before the first trial."""
        return self.monitor.figures(self.state)

    async def close(self) -> None:
        """Try once more to store what waits. What is lost when this daemon ends is logged."""
        _log(await asyncio.to_thread(self.history.flush))

    def _restore(self, found: StoredEvidence) -> None:
        _log_notes(found.notes)
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
            what = f"{self.history.path} cannot be read: the evidence of earlier daemons is not used"
            logger().warning(Event.EVIDENCE_DROPPED, what=what)


async def _store_in(history: History, saved: bytes) -> None:
    """Start in another directory with the evidence `saved`."""
    found = await asyncio.to_thread(history.load)
    _log_notes(found.notes)
    if found.state not in {b"", saved}:
        what = f"the evidence in {history.path} is not used: the running daemon continues there with its own"
        logger().warning(Event.EVIDENCE_DROPPED, what=what)
    if saved:
        _log(await asyncio.to_thread(lambda: history.append(carried=saved)))


def _log(kept: AppendResult) -> None:
    _log_notes(kept.notes)
    if kept.resumed is not None:
        logger().info(
            Event.HISTORY_RESUMED,
            appended=kept.resumed.appended,
            trials_lost=kept.resumed.lost,
            troubled_s=kept.resumed.troubled_s,
        )


def _log_notes(notes: Iterable[Note]) -> None:
    for note in notes:
        logger().error(Event.HISTORY_TROUBLE, what=note.what, remedy=note.remedy, aside=note.aside)
