"""Call-function requests by (func, stack): what every rung of the IPI ladder counts, and how it is read.

The kernel adds up; Python reads cumulative totals at the edges of windows and subtracts.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, ClassVar, Self

from kickwatch.model import Cell, IpiRung
from kickwatch.node import kernel
from kickwatch.node.causes import TRACEPOINT_FOR_IPIS
from kickwatch.observe.banks import Banks
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.frequent import KnownFuncs
from kickwatch.observe.layouts import BANKS, CELLS_CONFIG
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.masks import MOST_CPUS, mask_of
from kickwatch.observe.mutex_owner import owner_offset
from kickwatch.observe.readings import INDEX, PROGRAM_END_S, read_health, try_maps
from kickwatch.observe.request_cells import CellSum, RequestCounts, RequestSample, Totals, rise_of, sent_by_control
from kickwatch.observe.request_maps import (
    BankFigures,
    EachCpu,
    clear_targets,
    far_cpus,
    has_room,
    read_far_targets,
    read_hits,
    read_totals,
)
from kickwatch.observe.request_names import RequestNames, reached_by_name
from kickwatch.observe.symbols import Symbols

BROADCAST_SHARE_PERCENT = 90
_MANY_MASKS = "calls went to more sets of CPUs than the probe has room for"
_FEWER_MASKS = f"{TRACEPOINT_FOR_IPIS}; without it, kickwatch makes room again between two trials"


def broadcast_targets(cpus_online: int) -> int:
    """Requests that make one multi-CPU call a broadcast: 90 % of the other online CPUs, rounded up, at least one."""
    return max(1, -(-(cpus_online - 1) * BROADCAST_SHARE_PERCENT // 100))


@dataclass
class RequestObserver(ABC):
    """An armed probe of one rung that counts requests. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[IpiRung]
    OBJECT: ClassVar[str]
    PROGRAMS: ClassVar[tuple[str, ...]]
    RECYCLE_ABOVE: ClassVar[int] = 6000  # of the 8192 cells: more are cleared, between windows

    probe: BpfObject
    symbols: Symbols
    cpus_online: int
    slab_mutex: int = 0
    isolated: Sequence[int] = ()
    online: Sequence[int] = ()
    possible: Sequence[int] = ()
    funcs: KnownFuncs = field(init=False)
    names: RequestNames = field(init=False)
    owner_offset: int | None = field(init=False)  # of the word of slab_mutex that has its owner; None while unknown
    _banks: Banks = field(default_factory=Banks)
    _control: str = ""  # the name of the task that makes the positive control's requests, while it does
    _lost: int = 0
    _unplaced: int = 0
    _lock: RLock = field(default_factory=RLock)  # a sample in the loop, maintenance in a thread

    def __post_init__(self) -> None:
        """Look up addresses once: functions of the kernel itself do not move. Raises ObserveError."""
        self.funcs = KnownFuncs.of(self.symbols)
        self.owner_offset = owner_offset(self.symbols)
        self.names = RequestNames(self.probe, self.funcs, self._probed())

    @classmethod
    def arm(
        cls, symbols: Symbols, cpus_online: int, slab_mutex: int = 0, isolated: Sequence[int] = (), **options: Any
    ) -> Self:
        """Load, with the `options` of `load`, and attach.

        Raises ObserveError when the kernel lacks what the rung needs, or refuses BPF.
        """
        observer = cls.load(symbols, cpus_online, slab_mutex=slab_mutex, isolated=isolated, **options)
        try:
            observer.attach()
        except BaseException:
            observer.close()
            raise
        return observer

    @classmethod
    def load(
        cls,
        symbols: Symbols,
        cpus_online: int,
        possible: Sequence[int] | None = None,
        *,
        shared: Mapping[str, BpfMap] | None = None,
        sizes: Mapping[str, int] | None = None,
        **options: Any,
    ) -> Self:
        """Load without attaching, for CPUs `possible`, else this machine's. `options`: of the constructor.

        `shared`: maps of another probe; `sizes`: entries of maps, where they differ from the source's.
        """
        possible = possible or kernel.possible() or list(range(cpus_online))
        cpus = max(possible) + 1
        entries = {"each_cpu": cpus, "far_targets": BANKS * max(1, far_cpus(cpus)), **(sizes or {})}
        probe = BpfObject(cls.OBJECT, max_entries=entries, key_bytes=cls._keys(possible), shared=shared)
        try:
            observer = cls(probe, symbols, cpus_online, online=kernel.online(), possible=possible, **options)
            observer.configure()
            observer.funcs.await_examples(probe)
        except BaseException:
            probe.close()
            raise
        return observer

    def _probed(self) -> frozenset[str]:
        """The functions at whose entry stacks are taken, by name; none at a tracepoint."""
        return frozenset()

    @classmethod
    def _keys(cls, _possible: Sequence[int]) -> dict[str, int]:
        """The widths of keys that depend on the machine, by map."""
        return {}

    @abstractmethod
    def attach(self) -> None:
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
        with self._lock:
            cells = CELLS_CONFIG.pack(
                *self.funcs.frequent,
                paused,
                self._banks.in_use,
                bool(self.isolated),
                broadcast_targets(self.cpus_online),
                self.slab_mutex,
                self.slab_mutex + (self.owner_offset or 0) if self.owner_known else 0,
                far_cpus(self.targets),
                bool(self._control),
                self._control.encode(),
                *mask_of(self.isolated),
            )
            self.probe.map("config").put(INDEX.pack(0), self._configuration(cells))

    @property
    def losses(self) -> list[Loss]:
        """What this rung cannot count now."""
        found = []
        if beyond := [cpu for cpu in self.isolated if cpu >= MOST_CPUS]:
            what = f"CPUs from {min(beyond)} on are isolated, and the probes' masks end at CPU {MOST_CPUS - 1}"
            found.append(Loss(Lost.FAR_REQUESTS, what, f"isolate CPUs below {MOST_CPUS} instead; nothing else helps"))
        if self._unplaced:  # their number would make it another loss each time
            found.append(Loss(Lost.TARGETS, _MANY_MASKS, _FEWER_MASKS))
        return found

    @property
    def targets(self) -> int:
        """Requests are counted for this many target CPUs, from CPU 0 on."""
        return max(self.possible, default=self.cpus_online - 1) + 1

    @property
    def last_online(self) -> int:
        """The highest CPU that is online."""
        return max(self.online, default=self.cpus_online - 1)

    @property
    def bank(self) -> int:
        """The bank in which requests are counted now; every `read` changes it."""
        return self._banks.in_use

    def follow_cpus(self, online: Sequence[int], isolated: Sequence[int]) -> None:
        """Configure the probe again when other CPUs are online, or isolated."""
        if (online, isolated) != (self.online, self.isolated):
            self.online, self.cpus_online, self.isolated = online, len(online), isolated
            self.configure()

    def forget_names(self) -> None:
        """Modules came or went: addresses may have other meanings now."""
        self.names.forget()

    @property
    def owner_known(self) -> bool:
        """True if it can be read who holds slab_mutex. Until then nothing is counted as `under_slab_mutex`."""
        return bool(self.slab_mutex) and self.owner_offset is not None

    def set_slab_mutex(self, address: int, offset: int | None = 0) -> None:
        """Mark from now on the requests whose sender holds the mutex at `address`, which has its owner at `offset`."""
        self.slab_mutex, self.owner_offset = address, offset
        self.configure()

    @contextmanager
    def controlled(self, name: str) -> Iterator[None]:
        """Meanwhile count apart what tasks of this name send: 15 bytes, or the rest of another name may follow."""
        self._control = name
        self.configure()
        try:
            yield
        finally:
            self._control = ""
            self.configure()

    def sent_by_control(self, before: RequestSample, after: RequestSample) -> dict[str, Totals]:
        """What the task named in `controlled` sent between two samples, by function; `calls` are multi-CPU calls."""
        return {self.symbols.resolve(func): sent for func, sent in sent_by_control(before, after).items()}

    def try_maps(self) -> None:
        """Do everything that is done with the maps while the probe is armed. Raises ObserveError if it is refused."""
        self.configure()
        self.read()
        try_maps(self.probe, emptied=("cells", "certain_funcs", "hits"), walked=("stacks",))

    def read(self) -> RequestSample:
        """All totals. A few hundred keys: about a millisecond. Raises ObserveError."""
        with self._lock:
            counted = self._banks.turn(self.configure, self._read_bank)
            self._unplaced = counted.unplaced
            misses = sum(self.probe.run_statistics(program)[2] for program in self.PROGRAMS)
            return RequestSample(
                totals=counted.totals,
                health=read_health(self.probe.map("health")),
                recursion_misses=misses,
                targets=counted.targets,
                unplaced=counted.unplaced,
                hits=counted.hits,
            )

    def _read_bank(self, bank: int) -> BankFigures:
        """Targets first: see request_maps.py."""
        far = read_far_targets(self.probe, bank, self.targets)
        each = EachCpu(self.probe, bank, self.targets)
        hits = read_hits(self.probe, bank) + each.hits(self.funcs.frequent, self.isolated)
        totals = each.totals(self.funcs.keys) | read_totals(self.probe, bank)
        return BankFigures(totals, each.targets(self.targets) + far, each.unplaced(), hits)

    def cost(self) -> tuple[int, int]:
        """(ns, runs) of the probe's programs since they were loaded; both rise only while BPF statistics are on."""
        spent = [self.probe.run_statistics(program) for program in self.PROGRAMS]
        return sum(ns for ns, _, _ in spent), sum(runs for _, runs, _ in spent)

    def recycle_if_full(self) -> bool:
        """Clear everything when a map is nearly full or was too full for an event. Totals fall: see `fell`.

        Only between windows, and in a thread: it takes up to a tenth of a second.
        """
        with self._lock:
            lost = read_health(self.probe.map("health")).lost
            if lost == self._lost and self._has_room():
                return False
            self.configure(paused=True)
            try:
                time.sleep(PROGRAM_END_S)
                self._forget_all()
                self._lost = lost
            finally:
                self.configure()
            return True

    def _has_room(self) -> bool:
        return len(list(self.probe.map("cells").keys())) <= self.RECYCLE_ABOVE and has_room(self.probe, "hits")

    def _forget_all(self) -> None:
        self.names.forget()  # first: even a map that is emptied in part gives ids to other stacks
        self.funcs.await_examples(self.probe)  # they refer to stacks, as the cells do
        for name in ("cells", "stacks", "hits"):
            self.probe.map(name).clear()
        clear_targets(self.probe, self.targets)
        self._banks.forget()

    def creation_broadcasts(self, sample: RequestSample) -> int:
        """Broadcasts of the creation path in the totals of a sample."""
        sent = ((key, totals.broadcasts) for key, totals in sample.totals.items() if totals.broadcasts)
        return sum(broadcasts for key, broadcasts in sent if self.names.name(key, self.symbols).on_creation_path)

    def counts(self, sample: RequestSample) -> RequestCounts:
        """The totals of a sample in five figures."""
        broadcasts = elsewhere = 0
        for key, totals in sample.totals.items():
            named = self.names.name(key, self.symbols)
            broadcasts += totals.broadcasts if named.broadcasts_count else 0
            elsewhere += totals.requests if named.certainly_elsewhere else 0
        return RequestCounts(
            created=self.creation_broadcasts(sample),
            broadcasts=broadcasts,
            elsewhere=elsewhere,
            requests=sum(totals.requests for totals in sample.totals.values()),
            lost=sample.health.lost + sample.health.unknown_kind,
        )

    def cells(self, before: RequestSample, after: RequestSample, *, patches_count: bool = True) -> tuple[Cell, ...]:
        """The rise between two samples, largest first; one Cell per (reason, func, origin, path).

        The stack of a cell is that of its most frequent (func, stack); unless `patches_count`, of one that patches no
        kernel text if it has any.
        """
        merged: dict[tuple[str, ...], CellSum] = {}
        for key, totals in after.totals.items():
            rise = rise_of(before.totals.get(key), totals)
            if rise.requests:
                named = self.names.name(key, self.symbols)
                merged.setdefault(named.identity, CellSum(named, patches_count)).add(rise, named, key)
        hit = reached_by_name(before, after, self.symbols)
        cells = (total.cell(hit.get(total.named.func, ()) if self.isolated else None) for total in merged.values())
        return tuple(sorted(cells, key=lambda cell: -cell.requests))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()
