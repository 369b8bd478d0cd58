"""The evidence of a running daemon: each trial steps the detectors, and is kept with their new state in one go."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kickwatch.alert.journal import Event, logger
from kickwatch.config import Config
from kickwatch.detect.monitor import Monitor, pace_of
from kickwatch.detect.persist import restore, save
from kickwatch.detect.state import Outcome, State
from kickwatch.history import Entry, History, Note
from kickwatch.model import Trial


@dataclass
class Evidence:
    """The detectors, what they know, and where that is kept. Construct with `open`."""

    monitor: Monitor
    history: History
    state: State
    saved: bytes = b""
    kept: bool = True  # whether the newest trial is in the history

    @classmethod
    async def open(cls, config: Config) -> "Evidence":
        """Go on where the last daemon stopped; what of its evidence cannot be used is said."""
        monitor, history = Monitor(pace_of(config)), History(Path(config.state.directory))
        found = await asyncio.to_thread(history.load)
        _say(found.notes)
        state, lost = restore(monitor, found.state) if found.state else (monitor.start(), ())
        for what in lost:
            logger().warning(Event.EVIDENCE_DROPPED, what=what)
        return cls(monitor, history, state, found.state)

    async def take(self, trial: Trial) -> Outcome:
        """What the trial says, given all before it. It is kept whether it is valid or void."""
        before = self.saved
        self.state, outcome = self.monitor.step(self.state, trial)
        self.saved = save(self.monitor, self.state)
        entry = Entry(trial, before, outcome, self.saved, self.monitor.pace)
        kept = await asyncio.to_thread(self.history.append, entry)
        self.kept = kept.kept
        _say(kept.notes)
        return outcome


def _say(notes: Iterable[Note]) -> None:
    for note in notes:
        logger().error(Event.HISTORY_TROUBLE, what=note.what, remedy=note.remedy, aside=note.aside)
