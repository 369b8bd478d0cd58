"""Counters that never fall, from cumulative figures that sometimes do."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

Label = TypeVar("Label", bound=Hashable)
Counts = Mapping[Label, Mapping[Any, int]]
"""Cumulative figures by label and source. A source is a CPU, or an entry of a probe's map; it must be hashable."""


class Rising(Generic[Label]):
    """Adds up the rise between two readings, source by source.

    A source that is new, or has fallen, started again from zero, so its whole figure counts as rise. What it counted
    between the last reading and its reset is missing: the counter is a lower bound, and never jumps.
    """

    def __init__(self, labels: Iterable[Label], *, sources_return: bool = False) -> None:
        """All `labels` exist from the start, at zero.

        `sources_return`: a missing source keeps its figure and can come back with it, like a CPU that was offline.
        Otherwise it starts from zero when it comes back, like an entry of a map that was emptied, and is forgotten.
        """
        self.totals: dict[Label, int] = dict.fromkeys(labels, 0)
        self._last: dict[Label, dict[Any, int]] = {}
        self._sources_return = sources_return

    def feed(self, counts: Counts[Label]) -> None:
        """Take a reading. Figures are never negative."""
        for label, sources in counts.items():
            last = self._last.get(label, {})
            rise = sum(_rise(last.get(source, 0), count) for source, count in sources.items())
            self.totals[label] = self.totals.get(label, 0) + rise
        self._remember(counts)

    def skip(self, counts: Counts[Label]) -> None:
        """Take a reading without counting its rise."""
        self._remember(counts)

    def _remember(self, counts: Counts[Label]) -> None:
        if not self._sources_return:
            self._last.clear()
        for label, sources in counts.items():
            self._last.setdefault(label, {}).update(sources)


def _rise(before: int, after: int) -> int:
    return after - before if after >= before else after
