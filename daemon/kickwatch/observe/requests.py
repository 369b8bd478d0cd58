"""Call-function requests by (func, stack): what both rungs of the IPI ladder count, read and put into words.

The kernel sums; Python reads cumulative totals at window edges and subtracts. A total that fell means the maps were
recycled, which only happens between windows.
"""

import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

from kickwatch.attribution.attribute import Attribution, attribute, patches_text
from kickwatch.attribution.reasons import BUSY_FUNCS, REASONS, mask_follows_task, reason_of
from kickwatch.model import Cell, IpiRung, on_creation_path
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.readings import HEALTHY, PROGRAM_END_S, Health, read_health, read_stack, try_maps
from kickwatch.observe.symbols import Symbols

_CONFIG = struct.Struct("=4QIIQ")  # struct cells_config, with which each probe's own configuration begins
_KEY = struct.Struct("=QiI")  # struct cell_key
_CELL = struct.Struct("=QQQ")  # struct cell
_MULTI, _UNDER_SLAB_MUTEX = 1, 2  # CELL_MULTI, CELL_UNDER_SLAB_MUTEX of cells.h
_BUSY_SINGLES = tuple(func for func in BUSY_FUNCS if not reason_of(func).follows_task)
_BUSY_SHOOTDOWNS = tuple(func for func in BUSY_FUNCS if reason_of(func).follows_task)
_CERTAIN = tuple(func for reason in REASONS if reason.origin_is_certain and not reason.busy for func in reason.funcs)
_RECYCLE_ABOVE = 6000  # of the 8192 cells: time to forget, between windows
BROADCAST_SHARE_PERCENT = 90


class Totals(NamedTuple):
    """Cumulative figures of one map key."""

    requests: int
    calls: int
    broadcasts: int


@dataclass(frozen=True)
class RequestSample:
    """Everything the probe has counted since it was armed. Keys are the kernel's own, opaque here."""

    totals: Mapping[bytes, Totals]
    health: Health = HEALTHY
    recursion_misses: int = 0


def broadcast_targets(cpus_online: int) -> int:
    """Requests that make one multi-CPU call a broadcast: 90 % of the other online CPUs, rounded up, at least one."""
    return max(1, -(-(cpus_online - 1) * BROADCAST_SHARE_PERCENT // 100))


@dataclass
class _Named:
    """One (func, stack) in words, remembered: stack ids never change while the maps live."""

    attribution: Attribution
    func: str
    stack: tuple[str, ...]
    broadcasts_count: bool
    patches: bool = False  # kernel text, for a static key or a static call

    @property
    def on_creation_path(self) -> bool:
        return self.broadcasts_count and on_creation_path(self.attribution.origin, self.attribution.path)


@dataclass
class RequestObserver(ABC):
    """An armed probe that counts requests, of one rung. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[IpiRung]
    OBJECT: ClassVar[str]
    PROGRAMS: ClassVar[tuple[str, ...]]

    probe: BpfObject
    symbols: Symbols
    cpus_online: int
    slab_mutex: int = 0
    _names: dict[tuple[int, int], _Named] = field(default_factory=dict)
    _busy: tuple[int, ...] = ()
    _settled: tuple[int, ...] = ()
    _lost: int = 0

    def __post_init__(self) -> None:
        """Addresses are looked up once: functions of the kernel itself do not move. Raises ObserveError."""
        entries = self.symbols.entries((*BUSY_FUNCS, *_CERTAIN))
        # In the probe's order: two remote wakeups, two shootdowns; 0 is no such function in this kernel.
        for funcs in (_BUSY_SINGLES, _BUSY_SHOOTDOWNS):
            self._busy += tuple([*(address for func in funcs for address in entries[func]), 0, 0][:2])
        self._settled = tuple(address for func in _CERTAIN for address in entries[func])

    @classmethod
    def arm(cls, symbols: Symbols, cpus_online: int, slab_mutex: int = 0) -> Self:
        """Load and attach. Raises ObserveError when the kernel lacks what the rung stands on, or refuses BPF."""
        probe = BpfObject(cls.OBJECT)
        try:
            observer = cls(probe, symbols, cpus_online, slab_mutex)
            observer.configure()
            observer._await_examples()
            observer._attach()
        except BaseException:
            probe.close()
            raise
        return observer

    @abstractmethod
    def _attach(self) -> None:
        """Let the kernel run the probe."""

    @property
    @abstractmethod
    def places(self) -> str:
        """Where the kernel is watched, in words."""

    @abstractmethod
    def _own_configuration(self) -> bytes:
        """What follows `struct cells_config` in the probe's configuration."""

    def configure(self, *, paused: bool = False) -> None:
        """Write the probe's configuration."""
        common = _CONFIG.pack(*self._busy, paused, broadcast_targets(self.cpus_online), self.slab_mutex)
        self.probe.map("config").put(struct.pack("=I", 0), common + self._own_configuration())

    def follow_cpus(self, online: list[int]) -> None:
        """Configure the probe again when the CPUs that are online have changed."""
        if len(online) != self.cpus_online:
            self.cpus_online = len(online)
            self.configure()

    def _await_examples(self) -> None:
        """Tell the probe, or tell it anew, of which functions one stack is enough, for an example."""
        origin_is_certain = self.probe.map("certain_funcs")
        for address in self._settled:
            origin_is_certain.put(struct.pack("=Q", address), struct.pack("=i", 0))

    def forget_names(self) -> None:
        """Modules came or went: what addresses meant may hold no more."""
        self._names = {}

    def know_slab_mutex(self, address: int) -> None:
        """From now on mark requests whose sender holds the mutex at `address`."""
        self.slab_mutex = address
        self.configure()

    def try_maps(self) -> None:
        """Do all that is done with the maps while the probe is armed. Raises ObserveError where it is refused."""
        self.configure()
        self.read()
        try_maps(self.probe, emptied=("cells", "certain_funcs"), walked=("stacks",))

    def read(self) -> RequestSample:
        """All totals. A few hundred keys: about a millisecond. Raises ObserveError."""
        totals = {key: Totals(*_CELL.unpack(value)) for key, value in self.probe.map("cells").items()}
        for index, value in self.probe.map("busy_cells").items():
            func = self._busy[int.from_bytes(index, sys.byteorder)]
            totals[_KEY.pack(func, 0, 0)] = Totals(*_sum_cpus(value))
        misses = sum(self.probe.run_statistics(program)[2] for program in self.PROGRAMS)
        return RequestSample(totals, read_health(self.probe.map("health")), misses)

    def cost(self) -> tuple[int, int]:
        """(ns, runs) of the probe's programs since they were loaded; both rise only while BPF statistics are on."""
        spent = [self.probe.run_statistics(program) for program in self.PROGRAMS]
        return sum(ns for ns, _, _ in spent), sum(runs for _, runs, _ in spent)

    def recycle_if_full(self) -> bool:
        """Forget all cells when their map is nearly full or was too full for an event. Totals fall: see `fell`.

        Between windows only, and in a thread: it takes up to a tenth of a second.
        """
        cells, lost = self.probe.map("cells"), read_health(self.probe.map("health")).lost
        if len(list(cells.keys())) <= _RECYCLE_ABOVE and lost == self._lost:
            return False
        self.configure(paused=True)
        try:
            time.sleep(PROGRAM_END_S)
            self._names = {}  # first: a map that is emptied in part gives ids to other stacks, too
            self._await_examples()  # they name stacks, as the cells do
            cells.clear()
            self.probe.map("stacks").clear()
            self._lost = lost
        finally:
            self.configure()
        return True

    def creation_broadcasts(self, sample: RequestSample) -> int:
        """Broadcasts of the creation path in the totals of a sample."""
        sent = ((key, totals.broadcasts) for key, totals in sample.totals.items() if totals.broadcasts)
        return sum(broadcasts for key, broadcasts in sent if self._name(key).on_creation_path)

    def cells(self, before: RequestSample, after: RequestSample) -> tuple[Cell, ...]:
        """The rise between two samples in words, largest first; one Cell per (reason, func, origin, path).

        The stack of a cell is that of its most frequent (func, stack).
        """
        merged: dict[tuple[str, ...], _Sum] = {}
        for key, totals in after.totals.items():
            rise = _rise(before.totals.get(key), totals)
            if rise.requests:
                named = self._name(key)
                identity = (named.attribution.reason, named.func, named.attribution.origin, named.attribution.path)
                merged.setdefault(identity, _Sum(named)).add(rise, named, key)
        return tuple(sorted((total.cell() for total in merged.values()), key=lambda cell: -cell.requests))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()

    def _name(self, key: bytes) -> _Named:
        func, stack_id, _flags = _KEY.unpack(key)
        named = self._names.get((func, stack_id))
        if named is None:
            name = self.symbols.resolve(func)
            busy = name in BUSY_FUNCS
            stack = () if busy or stack_id < 0 else read_stack(self.probe.map("stacks"), stack_id, self.symbols)
            named = _Named(attribute(name, stack), name, stack, not mask_follows_task(name), patches_text(name, stack))
            if busy or stack or stack_id < 0:  # a stack that could not be read may be readable the next time
                self._names[(func, stack_id)] = named
        return named


@dataclass
class _Sum:
    named: _Named
    requests: int = 0
    calls: int = 0
    broadcasts: int = 0
    singles: int = 0
    patches: int = 0
    under_slab_mutex: int = 0
    largest: int = 0

    def add(self, rise: Totals, named: _Named, key: bytes) -> None:
        self.requests += rise.requests
        self.calls += rise.calls
        self.broadcasts += rise.broadcasts if named.broadcasts_count else 0
        self.patches += rise.broadcasts if named.broadcasts_count and named.patches else 0
        flags = _KEY.unpack(key)[2]
        if not (flags & _MULTI or rise.calls):  # busy functions have one key for both kinds
            self.singles += rise.requests
        if flags & _UNDER_SLAB_MUTEX:
            self.under_slab_mutex += rise.requests
        if rise.requests > self.largest and named.stack:
            self.largest, self.named = rise.requests, named

    def cell(self) -> Cell:
        told = self.named.attribution
        return Cell(
            reason=told.reason,
            func=self.named.func,
            origin=told.origin,
            path=told.path,
            requests=self.requests,
            calls=self.calls,
            broadcasts=self.broadcasts,
            singles=self.singles,
            patches=self.patches,
            under_slab_mutex=self.under_slab_mutex,
            stack=self.named.stack,
        )


def fell(before: Mapping[bytes, tuple[int, ...]], after: Mapping[bytes, tuple[int, ...]]) -> bool:
    """True if the maps were emptied between two readings of totals: what rose in between cannot be told."""
    return any(key not in after or after[key][0] < totals[0] for key, totals in before.items())


def _rise(before: Totals | None, after: Totals) -> Totals:
    if before is None or after.requests < before.requests:  # fell: recycled between the samples
        return after
    return Totals(*(a - b for a, b in zip(after, before, strict=True)))


def _sum_cpus(value: bytes) -> tuple[int, int, int]:
    parts: Iterable[tuple[int, int, int]] = _CELL.iter_unpack(value)
    columns = tuple(sum(column) for column in zip(*parts, strict=True))
    return (columns[0], columns[1], columns[2])
