"""Who waited for slab_mutex, how long, and who held it: the probe contention.bpf.c and the way to its mutex.

The address of slab_mutex comes from kallsyms where data symbols are listed (KALLSYMS_ALL). Elsewhere it is learnt: it
is the mutex whose contended stacks have slab_start, kmem_cache_create and the like just above the lock functions. Two
concurrent reads of /proc/slabinfo make such a wait; that is done at start only, because reading slabinfo holds
slab_mutex for the whole walk.
"""

import ctypes
import os
import struct
import threading
import time
from asyncio import to_thread
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

from kickwatch.attribution.attribute import attribute
from kickwatch.attribution.stacks import is_slab_mutex_stack, top_of_stack
from kickwatch.errors import KickwatchError, ObserveError
from kickwatch.model import ContentionRung, MutexWait
from kickwatch.native.driver import Helper
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.readings import HEALTHY, PROGRAM_END_S, Health, entry, read_health, read_stack, sum_of, try_maps
from kickwatch.observe.symbols import Symbols
from kickwatch.process.cancellation import run_shielded

_CONFIG = struct.Struct("=QII")  # struct contention_config
_KEY = struct.Struct("=QiI16s")  # struct wait_key
_WAIT = struct.Struct("=QQQ")  # struct wait
_RECYCLE_ABOVE = 3000  # of the 4096 keys and as many stacks: time to forget, between windows
_BUCKETS = 40
_PR_SET_NAME = 15
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
    _stacks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _foreign_stacks: set[int] = field(default_factory=set)  # seen while learning: not those of slab_mutex
    _lost: int = 0

    @classmethod
    def arm(cls, symbols: Symbols, comm_offset: int) -> Self:
        """Load and attach. Raises ObserveError when the kernel does not have what is watched or refuses BPF."""
        observer = cls(BpfObject(cls.OBJECT), symbols, symbols.address_of("slab_mutex") or 0, comm_offset)
        try:
            observer.configure()
            observer._attach()
        except BaseException:
            observer.close()
            raise
        return observer

    def _attach(self) -> None:
        for program in reversed(self.PROGRAMS):  # the end first: no wait is begun whose end would be missed
            self.probe.attach_raw_tracepoint(program, program)

    @property
    def places(self) -> str:
        """Where the kernel is watched, in words."""
        return "tracepoints lock:contention_begin, contention_end"

    def try_maps(self) -> None:
        """Do all that is done with the maps while the probe is armed. Raises ObserveError where it is refused."""
        self.configure()
        self.read()
        try_maps(self.probe, emptied=("waits", "waiting"), walked=("stacks",))

    def read(self) -> ContentionSample:
        """All totals. Raises ObserveError."""
        totals = {key: WaitTotals(*_WAIT.unpack(value)) for key, value in self.probe.map("waits").items()}
        histogram = self.probe.map("histogram")
        buckets = [sum_of(histogram, index) for index in range(_BUCKETS)]
        misses = sum(self.probe.run_statistics(program)[2] for program in self.PROGRAMS)
        return ContentionSample(totals, tuple(buckets), read_health(self.probe.map("health")), misses)

    def learn(self) -> int:
        """Find slab_mutex among the mutexes that were waited for so far; 0 while none was recognised.

        Once it is known, what was recorded of the others is deleted. Between windows only, and in a thread.
        """
        if self.slab_mutex:
            return self.slab_mutex
        for key in list(self.probe.map("waits").keys()):
            lock, stack_id, _, _ = _KEY.unpack(key)
            if stack_id < 0 or stack_id in self._foreign_stacks:
                continue
            stack = read_stack(self.probe.map("stacks"), stack_id, self.symbols)
            if is_slab_mutex_stack(stack):
                self.slab_mutex = lock
                self._forget_all_but(lock)
                return self.slab_mutex
            if stack:
                self._foreign_stacks.add(stack_id)
        return 0

    def recycle_if_full(self) -> bool:
        """Forget all waits when their map is nearly full or was too full for a wait. Totals fall.

        While slab_mutex is unknown every contended mutex is recorded. Between windows only, and in a thread.
        """
        keys, lost = list(self.probe.map("waits").keys()), read_health(self.probe.map("health")).lost
        if len(keys) <= _RECYCLE_ABOVE and lost == self._lost:
            return False
        self._forget_all_but(0)
        self._lost = lost
        return True

    def forget_names(self) -> None:
        """Modules came or went: what addresses meant may hold no more."""
        self._stacks, self._foreign_stacks = {}, set()

    async def provoke(self, proc: Path) -> int:
        """Make two tasks read /proc/slabinfo once, together, at most 100 ms, and learn from their wait."""
        if not self.slab_mutex:
            with suppress(KickwatchError):  # unreadable or no helper: then it is learnt from the first natural wait
                async with Helper(["slabinfo", proc / "slabinfo"]) as helper:
                    await helper.ask("read", _LEARN_DEADLINE_S)
        return await run_shielded(to_thread(self.learn))  # its thread uses what `close` gives back

    def waits(self, before: ContentionSample, after: ContentionSample) -> tuple[MutexWait, ...]:
        """Waits for slab_mutex between two samples, longest total first.

        `max_wait_ns` is the longest of the key since the probe was armed when it rose in between, else 0.
        """
        found = []
        for key, totals in after.totals.items():
            lock, stack_id, _, holder = _KEY.unpack(key)
            earlier = before.totals.get(key, WaitTotals(0, 0, 0))
            if lock != self.slab_mutex or totals.waits == earlier.waits:
                continue
            stack = self._stack(stack_id)
            told = attribute("", stack)
            found.append(
                MutexWait(
                    waiter=top_of_stack(stack),
                    holder=holder.partition(b"\0")[0].decode(errors="replace") or _UNNAMED,
                    waits=totals.waits - earlier.waits,
                    wait_ns=totals.wait_ns - earlier.wait_ns,
                    max_wait_ns=totals.max_wait_ns if totals.max_wait_ns > earlier.max_wait_ns else 0,
                    origin=told.origin,
                    path=told.path,
                    stack=stack,
                )
            )
        return tuple(sorted(found, key=lambda wait: -wait.wait_ns))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()

    def configure(self, *, paused: bool = False) -> None:
        """Write the probe's configuration: the mutex, and where a task's name is."""
        self.probe.map("config").put(struct.pack("=I", 0), _CONFIG.pack(self.slab_mutex, self.comm_offset, paused))

    def _forget_all_but(self, mutex: int) -> None:
        """Delete the waits for other locks than `mutex` (0: for all) and their stacks; also all waits under way.

        A wait that ended while the probe paused would else go on until the next one of its task.
        """
        waits, stacks = self.probe.map("waits"), self.probe.map("stacks")
        self.configure(paused=True)
        try:
            time.sleep(PROGRAM_END_S)
            keys = {key: _KEY.unpack(key) for key in waits.keys()}  # noqa: SIM118 -- a BPF map, not a dict
            kept = {key: stack for key, (lock, stack, *_) in keys.items() if lock == mutex}
            self.forget_names()  # first: a map that is emptied in part gives ids to other stacks, too
            waits.clear(keep=kept)
            self.probe.map("waiting").clear()
            stacks.clear(keep={struct.pack("=i", stack) for stack in kept.values()})
        finally:
            self.configure()

    def _stack(self, stack_id: int) -> tuple[str, ...]:
        if stack_id < 0:
            return ()
        stack = self._stacks.get(stack_id) or read_stack(self.probe.map("stacks"), stack_id, self.symbols)
        if stack:  # one that could not be read may be readable the next time
            self._stacks[stack_id] = stack
        return stack


def learn_comm_offset() -> int:
    """Offset of task_struct.comm, found in a copy of our own task after renaming it; 0 when it cannot be found.

    Without BTF there is no other way to name a task by its pointer. The thread renames itself twice: the
    tracepoint fires before the new name is written, so the copy holds the name before it.
    """
    found = [0]

    def look() -> None:
        try:
            found[0] = _find_comm()
        except ObserveError:
            found[0] = 0

    thread = threading.Thread(target=look)  # a thread of its own: it gives up its name
    thread.start()
    thread.join()
    return found[0]


def _find_comm() -> int:
    name = b"kw" + os.urandom(6).hex().encode()
    libc = ctypes.CDLL(None)
    probe = BpfObject("task_layout")
    try:
        probe.map("wanted_tid").put(struct.pack("=I", 0), struct.pack("=I", threading.get_native_id()))
        probe.attach_raw_tracepoint("task_rename", "task_rename")
        for new_name in (name, b"kickwatch"):
            libc.prctl(_PR_SET_NAME, ctypes.c_char_p(new_name), 0, 0, 0)
        copy = entry(probe.map("task"), 0)
    finally:
        probe.close()
    return max(0, copy.find(name + b"\0"))
