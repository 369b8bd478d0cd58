"""From the totals of a request probe to cells: what rose between two samples, merged under its names.

A total that fell means that the probe's maps were emptied, which happens only between windows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kickwatch.attribution.attribute import Attribution
from kickwatch.model import Cell, on_creation_path
from kickwatch.observe.layouts import CELL, CELL_KEY
from kickwatch.observe.readings import HEALTHY, Health

_MULTI, _UNDER_SLAB_MUTEX = 1, 2  # CELL_MULTI, CELL_UNDER_SLAB_MUTEX of cells.h


class Totals(NamedTuple):
    """Cumulative figures of one map key."""

    requests: int
    calls: int
    broadcasts: int


@dataclass(frozen=True)
class RequestSample:
    """Everything that the probe has counted since it was armed. Keys are packed CELL_KEYs."""

    totals: Mapping[bytes, Totals]
    health: Health = HEALTHY
    recursion_misses: int = 0


@dataclass
class NamedRequest:
    """What the addresses of one (func, stack) mean. `patches`: kernel text, for a static key or a static call."""

    attribution: Attribution
    func: str
    stack: tuple[str, ...]
    broadcasts_count: bool
    patches: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        """Requests of equal identity are one cell."""
        return (self.attribution.reason, self.func, self.attribution.origin, self.attribution.path)

    @property
    def on_creation_path(self) -> bool:
        """True if its broadcasts are broadcasts of the creation path."""
        return self.broadcasts_count and on_creation_path(self.attribution.origin, self.attribution.path)


@dataclass
class CellSum:
    """The sum of all map keys with one identity. `largest` is the rise of the key whose stack is shown."""

    named: NamedRequest
    requests: int = 0
    calls: int = 0
    broadcasts: int = 0
    singles: int = 0
    patches: int = 0
    under_slab_mutex: int = 0
    largest: int = 0

    def add(self, rise: Totals, named: NamedRequest, key: bytes) -> None:
        """Add the rise of one key."""
        self.requests += rise.requests
        self.calls += rise.calls
        self.broadcasts += rise.broadcasts if named.broadcasts_count else 0
        self.patches += rise.broadcasts if named.broadcasts_count and named.patches else 0
        flags = CELL_KEY.packed.unpack(key)[2]
        if not (flags & _MULTI or rise.calls):  # busy functions have one key for both kinds
            self.singles += rise.requests
        if flags & _UNDER_SLAB_MUTEX:
            self.under_slab_mutex += rise.requests
        if rise.requests > self.largest and named.stack:
            self.largest, self.named = rise.requests, named

    def cell(self) -> Cell:
        """The sum as a record has it."""
        attribution = self.named.attribution
        return Cell(
            reason=attribution.reason,
            func=self.named.func,
            origin=attribution.origin,
            path=attribution.path,
            requests=self.requests,
            calls=self.calls,
            broadcasts=self.broadcasts,
            singles=self.singles,
            patches=self.patches,
            under_slab_mutex=self.under_slab_mutex,
            stack=self.named.stack,
        )


def fell(before: Mapping[bytes, tuple[int, ...]], after: Mapping[bytes, tuple[int, ...]]) -> bool:
    """True if the maps were emptied between two readings: the rise between them is not known."""
    return any(key not in after or after[key][0] < totals[0] for key, totals in before.items())


def rise_of(before: Totals | None, after: Totals) -> Totals:
    """The difference; all of `after` if the key is new or its total fell, since the maps were emptied in between."""
    if before is None or after.requests < before.requests:
        return after
    return Totals(*(late - early for late, early in zip(after, before, strict=True)))


def sum_cpus(value: bytes) -> Totals:
    """The sum of a per-CPU value, a struct cell for each CPU."""
    cells: Iterable[tuple[int, ...]] = CELL.packed.iter_unpack(value)
    return Totals(*map(sum, zip(*cells, strict=True)))
