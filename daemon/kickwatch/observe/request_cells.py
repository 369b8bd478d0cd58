"""From the totals of a request probe to cells: what rose between two samples, merged under its names.

A total that fell means that the probe's maps were emptied, which happens only between windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kickwatch.attribution.attribute import Attribution
from kickwatch.model import Cell, Origin, on_creation_path
from kickwatch.observe.layouts import CELL_KEY
from kickwatch.observe.readings import HEALTHY, Health

_MULTI, _UNDER_SLAB_MUTEX, _CONTROL = 1, 2, 8  # CELL_MULTI, CELL_UNDER_SLAB_MUTEX, CELL_CONTROL of cells.h


class Totals(NamedTuple):
    """Cumulative figures of one map key."""

    requests: int
    calls: int
    broadcasts: int
    isolated: int = 0  # requests to isolated CPUs


@dataclass(frozen=True)
class RequestSample:
    """Everything that the probe has counted since it was armed. Keys are packed CELL_KEYs.

    `targets`: requests by target CPU; `unplaced`: those whose target is not known. Together they are all requests of
    `totals`. `hits`: requests by (address of the function, isolated CPU).
    """

    totals: Mapping[bytes, Totals]
    health: Health = HEALTHY
    recursion_misses: int = 0
    targets: Sequence[int] = ()
    unplaced: int = 0
    hits: Mapping[tuple[int, int], int] = field(default_factory=dict)


class RequestCounts(NamedTuple):
    """What a probe has counted since it was armed.

    `created`: broadcasts of the creation path, among all `broadcasts`. `elsewhere`: requests that certainly do not come
    from the creation path, among all `requests`. `lost`: requests that it could not count.
    """

    created: int
    broadcasts: int
    elsewhere: int
    requests: int
    lost: int


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

    @property
    def certainly_elsewhere(self) -> bool:
        """True if it does not come from the creation path. Half a stack does not show that."""
        origin, path = self.attribution.origin, self.attribution.path
        return origin != Origin.UNKNOWN and not on_creation_path(origin, path)


@dataclass
class CellSum:
    """The sum of all map keys with one identity. `shown` is how good the key is whose stack is shown.

    The largest rise is best. Where patches of kernel text do not count (`patches_count`), any other key is better: on
    arm64 a static key has the reason of the fault of 2017.
    """

    named: NamedRequest
    patches_count: bool = True
    requests: int = 0
    calls: int = 0
    broadcasts: int = 0
    singles: int = 0
    patches: int = 0
    isolated: int = 0
    under_slab_mutex: int = 0
    shown: tuple[bool, int] = (False, 0)

    def add(self, rise: Totals, named: NamedRequest, key: bytes) -> None:
        """Add the rise of one key."""
        self.requests += rise.requests
        self.calls += rise.calls
        self.broadcasts += rise.broadcasts if named.broadcasts_count else 0
        self.patches += rise.broadcasts if named.broadcasts_count and named.patches else 0
        self.isolated += rise.isolated
        _, _, flags, _ = CELL_KEY.packed.unpack(key)
        if not (flags & _MULTI or rise.calls):  # busy functions have one key for both kinds
            self.singles += rise.requests
        if flags & _UNDER_SLAB_MUTEX:
            self.under_slab_mutex += rise.requests
        rank = (self.patches_count or not named.patches, rise.requests)
        if rank > self.shown and named.stack:
            self.shown, self.named = rank, named

    def cell(self, isolated_cpus: Sequence[int] | None) -> Cell:
        """The sum as a record has it. `isolated_cpus`: those that its function reached; None where none is isolated."""
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
            isolated=self.isolated if isolated_cpus is not None else None,
            isolated_cpus=tuple(isolated_cpus or ()) if self.isolated else (),
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


def sent_by_control(before: RequestSample, after: RequestSample) -> dict[int, Totals]:
    """The rise of what the positive control sent, by the function's address."""
    found: dict[int, Totals] = {}
    for key, totals in after.totals.items():
        func, _, flags, _ = CELL_KEY.packed.unpack(key)
        if flags & _CONTROL:
            rise = rise_of(before.totals.get(key), totals)
            earlier = found.get(func, Totals(0, 0, 0))
            found[func] = Totals(*(one + more for one, more in zip(earlier, rise, strict=True)))
    return found


def by_target(before: RequestSample, after: RequestSample, last_cpu: int) -> tuple[int, ...] | None:
    """Requests between two samples by target: item i is CPU i's, up to `last_cpu` and any further one that was hit.

    None where they were not counted, where a request's target is not known, and where the maps were emptied.
    """
    if not after.targets or after.unplaced != before.unplaced:
        return None
    early = before.targets or [0] * len(after.targets)
    rises = [late - first for first, late in zip(early, after.targets, strict=True)]
    if min(rises) < 0:
        return None
    last_hit = max((cpu for cpu, rise in enumerate(rises) if rise), default=0)
    return tuple(rises[: max(last_cpu, last_hit) + 1])


def reached(before: RequestSample, after: RequestSample) -> dict[int, set[int]]:
    """The isolated CPUs that each function, by its address, reached between two samples."""
    found: dict[int, set[int]] = {}
    for (func, cpu), requests in after.hits.items():
        if requests != before.hits.get((func, cpu), 0):
            found.setdefault(func, set()).add(cpu)
    return found
