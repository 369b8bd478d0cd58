"""Call-function requests by (func, stack): the probe csd.bpf.c loaded, read and put into words.

The kernel sums; Python reads cumulative totals at window edges and subtracts. A total that fell means the maps were
recycled, which only happens between windows.
"""

import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kickwatch.model import Cell
from kickwatch.observe.bpf import BpfMap, BpfObject
from kickwatch.observe.reasons import BUSY_FUNCS, REASONS, Attribution, attribute, mask_follows_task, reason_of
from kickwatch.observe.symbols import Symbols

_CONFIG = struct.Struct("=QQQQQIIQQQQ")  # struct csd_config
_KEY = struct.Struct("=QiI")  # struct cell_key
_CELL = struct.Struct("=QQQ")  # struct cell
_MULTI, _UNDER_SLAB_MUTEX = 1, 2
_MAX_FRAMES = 48
_RECYCLE_ABOVE = 6000  # of the 8192 cells: time to forget, between windows
BROADCAST_SHARE_PERCENT = 90


class Totals(NamedTuple):
    """Cumulative figures of one map key."""

    requests: int
    calls: int
    broadcasts: int


class Health(NamedTuple):
    """What a probe could not do, cumulative; the order is that of `enum health_index` in probe.h."""

    lost: int = 0
    stackless: int = 0
    unknown_kind: int = 0


HEALTHY = Health()


@dataclass(frozen=True)
class CsdSample:
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


@dataclass
class CsdObserver:
    """The armed probe. Construct with `arm`; `close` disarms it."""

    probe: BpfObject
    symbols: Symbols
    cpus_online: int
    slab_mutex: int = 0
    _names: dict[tuple[int, int], _Named] = field(default_factory=dict)
    _busy: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """The busy functions are looked up once."""
        self._busy = self._busy_addresses()

    @classmethod
    def arm(cls, symbols: Symbols, cpus_online: int, slab_mutex: int = 0) -> "CsdObserver":
        """Load and attach. Raises ObserveError when the kernel has no csd_queue_cpu or refuses BPF."""
        probe = BpfObject("csd")
        observer = cls(probe, symbols, cpus_online, slab_mutex)
        try:
            observer.configure()
            observer._await_examples()
            probe.attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")
        except BaseException:
            probe.close()
            raise
        return observer

    def _busy_addresses(self) -> tuple[int, ...]:
        """Addresses of the busy functions in the probe's order: two remote wakeups, two TLB shootdowns; 0: none."""
        singles = [func for func in BUSY_FUNCS if not reason_of(func).follows_task]
        shootdowns = [func for func in BUSY_FUNCS if reason_of(func).follows_task]
        found = [[start for func in funcs for start, _ in self.symbols.ranges(func)] for funcs in (singles, shootdowns)]
        return tuple(address for starts in found for address in (*starts, 0, 0)[:2])

    def configure(self) -> None:
        """Write the probe's configuration: text of the multi-CPU caller, size of a broadcast, the slab_mutex."""
        ranges = [*self.symbols.ranges("smp_call_function_many_cond"), (0, 0), (0, 0)][:2]
        (start0, end0), (start1, end1) = ranges
        targets = broadcast_targets(self.cpus_online)
        value = _CONFIG.pack(start0, start1, end0, end1, self.slab_mutex, targets, 0, *self._busy)
        self.probe.map("config").put(struct.pack("=I", 0), value)

    def _await_examples(self) -> None:
        """Tell the probe of which functions one stack is enough, for an example."""
        settled = self.probe.map("settled_funcs")
        for reason in REASONS:
            if reason.settled and not reason.busy:
                for start, _ in (span for func in reason.funcs for span in self.symbols.ranges(func)):
                    settled.put(struct.pack("=Q", start), struct.pack("=i", 0))

    def know_slab_mutex(self, address: int) -> None:
        """From now on mark requests whose sender holds the mutex at `address`."""
        self.slab_mutex = address
        self.configure()

    def read(self) -> CsdSample:
        """All totals. A few hundred keys: about a millisecond."""
        totals = {key: Totals(*_CELL.unpack(value)) for key, value in self.probe.map("cells").items()}
        for index, value in self.probe.map("busy_cells").items():
            func = self._busy[int.from_bytes(index, sys.byteorder)]
            totals[_KEY.pack(func, 0, 0)] = Totals(*_sum_cpus(value))
        misses = self.probe.run_statistics("csd_queue_cpu")[2]
        return CsdSample(totals, read_health(self.probe.map("health")), misses)

    def recycle_if_full(self) -> bool:
        """Forget all cells when the map is nearly full. Call between windows only: totals fall."""
        cells = self.probe.map("cells")
        keys = list(cells.keys())
        if len(keys) <= _RECYCLE_ABOVE:
            return False
        stacks = self.probe.map("stacks")
        for key in keys:
            cells.delete(key)
        for stack in list(stacks.keys()):
            stacks.delete(stack)
        self._await_examples()  # their examples are gone
        self._names.clear()
        return True

    def creation_broadcasts(self, sample: CsdSample) -> int:
        """Broadcasts of the creation path in the totals of a sample."""
        count = 0
        for key, totals in sample.totals.items():
            if totals.broadcasts and (named := self._name(key)).broadcasts_count:
                origin_path = Cell(
                    reason="", func="", origin=named.attribution.origin, path=named.attribution.path, requests=0
                )
                count += totals.broadcasts if origin_path.on_creation_path else 0
        return count

    def cells(self, before: CsdSample, after: CsdSample) -> tuple[Cell, ...]:
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
            named = _Named(attribute(name, stack), name, stack, not mask_follows_task(name))
            self._names[(func, stack_id)] = named
        return named


@dataclass
class _Sum:
    named: _Named
    requests: int = 0
    calls: int = 0
    broadcasts: int = 0
    under_slab_mutex: int = 0
    largest: int = 0

    def add(self, rise: Totals, named: _Named, key: bytes) -> None:
        self.requests += rise.requests
        self.calls += rise.calls
        self.broadcasts += rise.broadcasts if named.broadcasts_count else 0
        if _KEY.unpack(key)[2] & _UNDER_SLAB_MUTEX:
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
            under_slab_mutex=self.under_slab_mutex,
            stack=self.named.stack,
        )


def _rise(before: Totals | None, after: Totals) -> Totals:
    if before is None or after.requests < before.requests:  # fell: recycled between the samples
        return after
    return Totals(*(a - b for a, b in zip(after, before, strict=True)))


def _sum_cpus(value: bytes) -> tuple[int, int, int]:
    parts: Iterable[tuple[int, int, int]] = _CELL.iter_unpack(value)
    columns = tuple(sum(column) for column in zip(*parts, strict=True))
    return (columns[0], columns[1], columns[2])


def read_stack(stacks: BpfMap, stack_id: int, symbols: Symbols) -> tuple[str, ...]:
    """Function names of a stack id, innermost first; empty when the kernel has dropped it."""
    value = stacks.get(struct.pack("=I", stack_id))
    if value is None:
        return ()
    addresses = struct.unpack(f"={_MAX_FRAMES}Q", value)
    return without_glue([symbols.resolve(address) for address in addresses if address])


def without_glue(stack: list[str]) -> tuple[str, ...]:
    """Drop what a raw tracepoint puts on top of the kernel's own frames: the probe itself and what called it."""
    for depth, name in enumerate(stack[:4]):
        if name.startswith("bpf_trace_run"):
            stack = stack[depth + 1 :]
            break
    while stack and stack[0].startswith(("__bpf_trace_", "__traceiter_", "__probestub_")):
        stack = stack[1:]
    return tuple(stack)


def read_health(health: BpfMap) -> Health:
    """The probe's own counters, summed over CPUs."""
    counts = []
    for index in range(len(Health._fields)):
        value = health.get(struct.pack("=I", index)) or b""
        counts.append(sum(word for (word,) in struct.iter_unpack("=Q", value)))
    return Health(*counts)
