"""Who waited for slab_mutex, for how long, and who held it: the probe contention.bpf.c, and how it learns the mutex.

The address of slab_mutex comes from kallsyms if data symbols are listed (KALLSYMS_ALL). Otherwise it is learnt: it is
the mutex whose contended stacks have slab_start, kmem_cache_create or a similar function as the direct caller of the
lock functions. Two concurrent reads of /proc/slabinfo cause such a wait. That is done only at start, since a read of
slabinfo holds slab_mutex for the whole walk.
"""

import time
from asyncio import to_thread
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from kickwatch.attribution.attribute import attribute
from kickwatch.attribution.stacks import is_slab_mutex_stack, top_of_stack
from kickwatch.errors import KickwatchError
from kickwatch.model import ContentionRung, MutexWait
from kickwatch.native.driver import Helper
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import CONTENTION_CONFIG, HISTOGRAM_BUCKETS, WAIT, WAIT_KEY
from kickwatch.observe.mutex_owner import UNKNOWN, owner_offset
from kickwatch.observe.readings import HEALTHY, INDEX, PROGRAM_END_S, Health, read_health, read_stack, sums_of, try_maps
from kickwatch.observe.symbols import Symbols
from kickwatch.process.cancellation import run_shielded

_KEY, _WAIT = WAIT_KEY.packed, WAIT.packed
_RECYCLE_ABOVE = 3000  # of the 4096 keys and as many stacks: more are cleared, between windows
_LEARN_DEADLINE_S = 2.0
_UNNAMED = "(not named)"


class WaitTotals(NamedTuple):
    """Cumulative figures of one (lock, stack, holder)."""

    waits: int
    wait_ns: int
    max_wait_ns: int


@dataclass(frozen=True)
class ContentionSample:
    """Everything counted since the probe was armed."""

    totals: Mapping[bytes, WaitTotals]
    histogram: tuple[int, ...] = ()
    health: Health = HEALTHY
    recursion_misses: int = 0


@dataclass
class ContentionObserver:
    """The armed probe. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[ContentionRung] = ContentionRung.TRACEPOINT
    OBJECT: ClassVar[str] = "contention"
    PROGRAMS: ClassVar[tuple[str, str]] = ("contention_begin", "contention_end")

    probe: BpfObject
    symbols: Symbols
    slab_mutex: int
    comm_offset: int
    owner_offset: int | None = field(init=False)  # None until it is learnt: see mutex_owner.py
    _stacks: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)  # by (id, caller)
    _other_stacks: set[tuple[int, int]] = field(default_factory=set)  # seen while learning, of other mutexes
    _lost: int = 0
    _provoked: bool = False

    def __post_init__(self) -> None:
        """Look up what is known without a wait."""
        self.owner_offset = owner_offset(self.symbols)

    @classmethod
    def arm(cls, symbols: Symbols, comm_offset: int) -> Self:
        """Load and attach. Raises ObserveError when the kernel lacks what the rung needs, or refuses BPF."""
        observer = cls(BpfObject(cls.OBJECT), symbols, symbols.address_of("slab_mutex") or 0, comm_offset)
        try:
            observer.configure()
            observer._attach()
        except BaseException:
            observer.close()
            raise
        return observer

    def _attach(self) -> None:
        for program in reversed(self.PROGRAMS):  # the end first: no wait begins whose end is missed
            self.probe.attach_raw_tracepoint(program, program)

    @property
    def places(self) -> str:
        """Where the programs are attached, in words."""
        return "tracepoints lock:contention_begin, contention_end"

    def try_maps(self) -> None:
        """Do everything that is done with the maps while the probe is armed. Raises ObserveError if it is refused."""
        self.configure()
        self.read()
        try_maps(self.probe, emptied=("waits", "waiting"), walked=("stacks",))

    def read(self) -> ContentionSample:
        """All totals. Raises ObserveError."""
        totals = {key: WaitTotals(*_WAIT.unpack(value)) for key, value in self.probe.map("waits").items()}
        buckets = sums_of(self.probe.map("histogram"), range(HISTOGRAM_BUCKETS))
        misses = sum(self.probe.run_statistics(program)[2] for program in self.PROGRAMS)
        return ContentionSample(totals, tuple(buckets), read_health(self.probe.map("health")), misses)

    def learn(self) -> int:
        """Find slab_mutex among the mutexes that were waited for; 0 while none is recognised. Also a mutex's owner.

        Once it is known, the waits for other mutexes are deleted. Only between windows, and in a thread.
        """
        self._learn_owner()
        if self.slab_mutex:
            return self.slab_mutex
        for key in list(self.probe.map("waits").keys()):
            lock, caller, stack_id, _, _ = _KEY.unpack(key)
            if stack_id < 0 or (stack_id, caller) in self._other_stacks:
                continue
            stack = self._read_stack(stack_id, caller)
            if is_slab_mutex_stack(stack):
                self.slab_mutex = lock
                self._forget_all_but(lock)
                return self.slab_mutex
            if stack:
                self._other_stacks.add((stack_id, caller))
        return 0

    def _learn_owner(self) -> None:
        if self.owner_offset is None and (found := self._owner_found()):
            self.owner_offset = found - 1
            if self.slab_mutex:
                self._forget_all_but(self.slab_mutex)  # waits for others, begun in order to learn, have no end now
            else:
                self.configure()

    def _owner_found(self) -> int:
        """The offset that the probe has learnt, plus one; 0 while it has not."""
        return sums_of(self.probe.map("owner_found"), range(1))[0]

    def recycle_if_full(self) -> bool:
        """Clear all waits when their map is nearly full or was too full for a wait. Totals fall.

        While slab_mutex is unknown every contended mutex is recorded. Only between windows, and in a thread.
        """
        keys, lost = list(self.probe.map("waits").keys()), read_health(self.probe.map("health")).lost
        if len(keys) <= _RECYCLE_ABOVE and lost == self._lost:
            return False
        self._forget_all_but(0)
        self._lost = lost
        return True

    def forget_names(self) -> None:
        """Modules came or went: addresses may have other meanings now."""
        self._stacks, self._other_stacks = {}, set()

    async def provoke(self, proc: Path) -> int:
        """Make two tasks read /proc/slabinfo together, for at most 100 ms, and learn from their wait.

        They read it once; when called again, since they missed each other, again and again in that time. If that does
        not show a mutex's owner they read it through one descriptor for 20 ms more.
        """
        if not self.slab_mutex or self.owner_offset is None:
            await _meet(proc, "repeat" if self._provoked else "read")
            self._provoked = True
        mutex = await run_shielded(to_thread(self.learn))  # its thread uses what `close` frees
        if self.owner_offset is None:
            await _meet(proc, "share")
            mutex = await run_shielded(to_thread(self.learn))
        return mutex

    def waits(self, before: ContentionSample, after: ContentionSample) -> tuple[MutexWait, ...]:
        """Waits for slab_mutex between two samples, longest total first.

        `max_wait_ns` is the key's longest since the probe was armed if it rose between the samples, else 0.
        """
        found = []
        for key, totals in after.totals.items():
            lock, caller, stack_id, _, holder = _KEY.unpack(key)
            earlier = before.totals.get(key, WaitTotals(0, 0, 0))
            if lock != self.slab_mutex or totals.waits == earlier.waits:
                continue
            stack = self._stack(stack_id, caller)
            attribution = attribute("", stack)
            found.append(
                MutexWait(
                    waiter=top_of_stack(stack),
                    holder=holder.partition(b"\0")[0].decode(errors="replace") or _UNNAMED,
                    waits=totals.waits - earlier.waits,
                    wait_ns=totals.wait_ns - earlier.wait_ns,
                    max_wait_ns=totals.max_wait_ns if totals.max_wait_ns > earlier.max_wait_ns else 0,
                    origin=attribution.origin,
                    path=attribution.path,
                    stack=stack,
                )
            )
        return tuple(sorted(found, key=lambda wait: -wait.wait_ns))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()

    def configure(self, *, paused: bool = False) -> None:
        """Write the probe's configuration: the mutex, and where a task's name and a mutex's owner are."""
        owner = UNKNOWN if self.owner_offset is None else self.owner_offset
        configuration = CONTENTION_CONFIG.pack(self.slab_mutex, self.comm_offset, paused, owner, 0)
        self.probe.map("config").put(INDEX.pack(0), configuration)

    def _forget_all_but(self, mutex: int) -> None:
        """Delete the waits for other locks than `mutex` (0: for all) with their stacks, and all waits under way.

        A wait that ends while the probe is paused would otherwise last until the next wait of its task.
        """
        waits, stacks = self.probe.map("waits"), self.probe.map("stacks")
        self.configure(paused=True)
        try:
            time.sleep(PROGRAM_END_S)
            keys = {key: _KEY.unpack(key) for key in waits.keys()}  # noqa: SIM118 -- a BPF map, not a dict
            kept = {key: stack for key, (lock, _, stack, *_) in keys.items() if lock == mutex}
            self.forget_names()  # first: even a map that is emptied in part gives ids to other stacks
            waits.clear(keep=kept)
            self.probe.map("waiting").clear()
            stacks.clear(keep={INDEX.pack(stack) for stack in kept.values() if stack >= 0})
        finally:
            self.configure()

    def _stack(self, stack_id: int, caller: int) -> tuple[str, ...]:
        if stack_id < 0:
            return ()
        stack = self._stacks.get((stack_id, caller)) or self._read_stack(stack_id, caller)
        if stack:  # one that could not be read may be readable the next time
            self._stacks[stack_id, caller] = stack
        return stack

    def _read_stack(self, stack_id: int, caller: int) -> tuple[str, ...]:
        return read_stack(self.probe.map("stacks"), stack_id, self.symbols, caller, self._probed)

    @property
    def _probed(self) -> tuple[str, ...]:
        """The functions at whose entry stacks are taken, by name; none at a tracepoint."""
        return ()


async def _meet(proc: Path, command: str) -> None:
    """Without slabinfo or the helper the mutex is learnt from the first natural wait."""
    with suppress(KickwatchError):
        async with Helper(["slabinfo", proc / "slabinfo"]) as helper:
            await helper.ask(command, _LEARN_DEADLINE_S)
