"""Counters that never fall, made of cumulative figures that sometimes do."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

Label = TypeVar("Label", bound=Hashable)
Counts = Mapping[Label, Mapping[Any, int]]
"""Cumulative figures: by label, and below it by the source that counts (a CPU, an entry of a probe's map): hashable."""


class Rising(Generic[Label]):
    """Adds up what rose between two readings, source by source.

    A source that fell, or is new, has counted from zero: its whole figure rose. What it counted between the last
    reading and its fall was never read and is missing: a counter here is a lower bound, and never a jump.
    """

    def __init__(self, labels: Iterable[Label], *, sources_return: bool = False) -> None:
        """All `labels` are there at zero.

        `sources_return`: a source that is missing for a while comes back with the figure it had, as a CPU that was
        offline does; otherwise it begins anew, as an entry of a map that was emptied does, and is forgotten.
        """
        self.totals: dict[Label, int] = dict.fromkeys(labels, 0)
        self._last: dict[Label, dict[Any, int]] = {}
        self._sources_return = sources_return

    def feed(self, counts: Counts[Label]) -> None:
        """Take one more reading. Figures of a source are never negative."""
        for label, sources in counts.items():
            last = self._last.get(label, {})
            rise = sum(_rise(last.get(source, 0), count) for source, count in sources.items())
            self.totals[label] = self.totals.get(label, 0) + rise
        self._remember(counts)

    def skip(self, counts: Counts[Label]) -> None:
        """Take a reading whose rise is not to be counted."""
        self._remember(counts)

    def _remember(self, counts: Counts[Label]) -> None:
        if not self._sources_return:
            self._last.clear()
        for label, sources in counts.items():
            self._last.setdefault(label, {}).update(sources)


def _rise(before: int, after: int) -> int:
    return after - before if after >= before else after
