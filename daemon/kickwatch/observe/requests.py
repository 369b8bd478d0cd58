"""Call-function requests by (func, stack): what every rung of the IPI ladder counts, and how it is read.

The kernel adds up; Python reads cumulative totals at the edges of windows and subtracts.
"""

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Self

from kickwatch.attribution.attribute import attribute, patches_text
from kickwatch.attribution.reasons import BUSY_FUNCS, REASONS, mask_follows_task, reason_of
from kickwatch.model import Cell, IpiRung
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import CELL, CELL_KEY, CELLS_CONFIG, EXAMPLE
from kickwatch.observe.readings import INDEX, PROGRAM_END_S, read_health, read_stack, try_maps
from kickwatch.observe.request_cells import CellSum, NamedRequest, RequestSample, Totals, rise_of, sum_cpus
from kickwatch.observe.symbols import Symbols

_BUSY_SINGLES = tuple(func for func in BUSY_FUNCS if not reason_of(func).follows_task)
_BUSY_SHOOTDOWNS = tuple(func for func in BUSY_FUNCS if reason_of(func).follows_task)
_CERTAIN = tuple(func for reason in REASONS if reason.origin_is_certain and not reason.busy for func in reason.funcs)
_RECYCLE_ABOVE = 6000  # of the 8192 cells: more are cleared, between windows
BROADCAST_SHARE_PERCENT = 90


def broadcast_targets(cpus_online: int) -> int:
    """Requests that make one multi-CPU call a broadcast: 90 % of the other online CPUs, rounded up, at least one."""
    return max(1, -(-(cpus_online - 1) * BROADCAST_SHARE_PERCENT // 100))


@dataclass
class RequestObserver(ABC):
    """An armed probe of one rung that counts requests. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[IpiRung]
    OBJECT: ClassVar[str]
    PROGRAMS: ClassVar[tuple[str, ...]]

    probe: BpfObject
    symbols: Symbols
    cpus_online: int
    slab_mutex: int = 0
    _names: dict[tuple[int, int], NamedRequest] = field(default_factory=dict)  # ids are stable while the maps live
    _busy: tuple[int, ...] = ()
    _certain: tuple[int, ...] = ()
    _lost: int = 0

    def __post_init__(self) -> None:
        """Look up addresses once: functions of the kernel itself do not move. Raises ObserveError."""
        entries = self.symbols.entries((*BUSY_FUNCS, *_CERTAIN))
        # In the probe's order: two remote wakeups, two shootdowns; 0 if this kernel has no such function.
        for funcs in (_BUSY_SINGLES, _BUSY_SHOOTDOWNS):
            self._busy += tuple([*(address for func in funcs for address in entries[func]), 0, 0][:2])
        self._certain = tuple(address for func in _CERTAIN for address in entries[func])

    @classmethod
    def arm(cls, symbols: Symbols, cpus_online: int, slab_mutex: int = 0) -> Self:
        """Load and attach. Raises ObserveError when the kernel lacks what the rung needs, or refuses BPF."""
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
        """Attach the programs to the kernel."""

    @property
    @abstractmethod
    def places(self) -> str:
        """Where the programs are attached, in words."""

    @abstractmethod
    def _configuration(self, cells: bytes) -> bytes:
        """The probe's whole configuration; `cells` is the packed CELLS_CONFIG in it."""

    def configure(self, *, paused: bool = False) -> None:
        """Write the probe's configuration."""
        cells = CELLS_CONFIG.pack(*self._busy, paused, broadcast_targets(self.cpus_online), self.slab_mutex)
        self.probe.map("config").put(INDEX.pack(0), self._configuration(cells))

    def follow_cpus(self, online: list[int]) -> None:
        """Configure the probe again when the CPUs that are online have changed."""
        if len(online) != self.cpus_online:
            self.cpus_online = len(online)
            self.configure()

    def _await_examples(self) -> None:
        """Make the probe take one stack, as an example, for each function whose origin is certain."""
        examples = self.probe.map("certain_funcs")
        for address in self._certain:
            examples.put(address.to_bytes(8, sys.byteorder), EXAMPLE.pack(0))

    def forget_names(self) -> None:
        """Modules came or went: addresses may have other meanings now."""
        self._names = {}

    def set_slab_mutex(self, address: int) -> None:
        """Mark from now on the requests whose sender holds the mutex at `address`."""
        self.slab_mutex = address
        self.configure()

    def try_maps(self) -> None:
        """Do everything that is done with the maps while the probe is armed. Raises ObserveError if it is refused."""
        self.configure()
        self.read()
        try_maps(self.probe, emptied=("cells", "certain_funcs"), walked=("stacks",))

    def read(self) -> RequestSample:
        """All totals. A few hundred keys: about a millisecond. Raises ObserveError."""
        unpack = CELL.packed.unpack
        totals = {key: Totals(*unpack(value)) for key, value in self.probe.map("cells").items()}
        for index, value in self.probe.map("busy_cells").items():
            func = self._busy[int.from_bytes(index, sys.byteorder)]
            totals[CELL_KEY.pack(func, 0, 0)] = sum_cpus(value)
        misses = sum(self.probe.run_statistics(program)[2] for program in self.PROGRAMS)
        return RequestSample(totals, read_health(self.probe.map("health")), misses)

    def cost(self) -> tuple[int, int]:
        """(ns, runs) of the probe's programs since they were loaded; both rise only while BPF statistics are on."""
        spent = [self.probe.run_statistics(program) for program in self.PROGRAMS]
        return sum(ns for ns, _, _ in spent), sum(runs for _, runs, _ in spent)

    def recycle_if_full(self) -> bool:
        """Clear all cells when their map is nearly full or was too full for an event. Totals fall: see `fell`.

        Only between windows, and in a thread: it takes up to a tenth of a second.
        """
        cells, lost = self.probe.map("cells"), read_health(self.probe.map("health")).lost
        if len(list(cells.keys())) <= _RECYCLE_ABOVE and lost == self._lost:
            return False
        self.configure(paused=True)
        try:
            time.sleep(PROGRAM_END_S)
            self._names = {}  # first: even a map that is emptied in part gives ids to other stacks
            self._await_examples()  # they refer to stacks, as the cells do
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
        """The rise between two samples, largest first; one Cell per (reason, func, origin, path).

        The stack of a cell is that of its most frequent (func, stack).
        """
        merged: dict[tuple[str, ...], CellSum] = {}
        for key, totals in after.totals.items():
            rise = rise_of(before.totals.get(key), totals)
            if rise.requests:
                named = self._name(key)
                merged.setdefault(named.identity, CellSum(named)).add(rise, named, key)
        return tuple(sorted((total.cell() for total in merged.values()), key=lambda cell: -cell.requests))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()

    def _name(self, key: bytes) -> NamedRequest:
        func, stack_id, _flags = CELL_KEY.packed.unpack(key)
        named = self._names.get((func, stack_id))
        if named is None:
            name = self.symbols.resolve(func)
            busy = name in BUSY_FUNCS
            stack = () if busy or stack_id < 0 else read_stack(self.probe.map("stacks"), stack_id, self.symbols)
            counts, patches = not mask_follows_task(name), patches_text(name, stack)
            named = NamedRequest(attribute(name, stack), name, stack, counts, patches)
            if busy or stack or stack_id < 0:  # a stack that could not be read may be readable the next time
                self._names[(func, stack_id)] = named
        return named
