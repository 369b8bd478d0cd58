"""Trials that are not in the store yet: encoded, in order, in a bounded amount of memory.

When memory is full, the oldest trials go. Each trial carries the evidence it started with, so a replay can continue
after a gap.
"""

import zlib
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from kickwatch.detect.rates import Pace
from kickwatch.detect.state import TrialOutcome
from kickwatch.model import Trial

MAX_BYTES = 1024 * 1024


class Entry(msgspec.Struct, frozen=True):
    """One trial: its record, the evidence before and after it, its outcome, and the pace that set its thresholds.

    `before` is empty if there was no evidence yet.
    """

    trial: Trial
    before: bytes
    outcome: TrialOutcome
    after: bytes
    pace: Pace


class Pending(msgspec.Struct, frozen=True):
    """An Entry in the form in which it is stored; `before`, `record` and `after` are compressed."""

    trial: str
    started_unix_s: float
    pace: Pace
    before: bytes
    outcome: bytes
    record: bytes
    after: bytes

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return len(self.before) + len(self.outcome) + len(self.record) + len(self.after)


class Backlog:
    """The trials that wait for the store."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """The newest trial is kept whatever its size."""
        self._max_bytes = max_bytes
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self.lost = 0  # trials dropped since `clear`

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Pending]:
        """Oldest first."""
        return iter(self._waiting)

    @property
    def newest_unix_s(self) -> float:
        """When the newest trial started; 0 without one."""
        return self._waiting[-1].started_unix_s if self._waiting else 0.0

    def add(self, entries: Iterable[Entry]) -> None:
        """Keep these as well."""
        for entry in entries:
            pending = _encoded(entry)
            self._waiting.append(pending)
            self._bytes += pending.size
        while self._bytes > self._max_bytes and len(self._waiting) > 1:
            self._bytes -= self._waiting.popleft().size
            self.lost += 1

    def clear(self) -> None:
        """All of them are in the store now."""
        self._waiting.clear()
        self._bytes = self.lost = 0


def _encoded(entry: Entry) -> Pending:
    return Pending(
        trial=entry.trial.trial_id,
        started_unix_s=entry.trial.started_unix_s,
        pace=entry.pace,
        before=zlib.compress(entry.before),
        outcome=msgspec.json.encode(entry.outcome),
        record=zlib.compress(msgspec.json.encode(entry.trial)),
        after=zlib.compress(entry.after),
    )
