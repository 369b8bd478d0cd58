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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kickwatch.errors import KickwatchError, ObserveError
from kickwatch.model import Wait
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.csd import HEALTHY, Health, read_health, read_stack
from kickwatch.observe.reasons import attribute, is_slab_mutex_stack, top_of_stack
from kickwatch.observe.symbols import Symbols
from kickwatch.workload.helper import Helper

_CONFIG = struct.Struct("=QII")  # struct contention_config
_KEY = struct.Struct("=QiI16s")  # struct wait_key
_WAIT = struct.Struct("=QQQ")  # struct wait
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


@dataclass
class ContentionObserver:
    """The armed probe. Construct with `arm`; `close` disarms it."""

    probe: BpfObject
    symbols: Symbols
    slab_mutex: int
    comm_offset: int
    _stacks: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def arm(cls, symbols: Symbols, comm_offset: int) -> "ContentionObserver":
        """Load and attach. Raises ObserveError when the kernel has no contention tracepoints or refuses BPF."""
        observer = cls(BpfObject("contention"), symbols, symbols.address_of("slab_mutex") or 0, comm_offset)
        try:
            observer._configure()
            observer.probe.attach_raw_tracepoint("contention_end", "contention_end")
            observer.probe.attach_raw_tracepoint("contention_begin", "contention_begin")
        except BaseException:
            observer.close()
            raise
        return observer

    def read(self) -> ContentionSample:
        """All totals."""
        totals = {key: WaitTotals(*_WAIT.unpack(value)) for key, value in self.probe.map("waits").items()}
        histogram = self.probe.map("histogram")
        buckets = []
        for index in range(_BUCKETS):
            value = histogram.get(struct.pack("=I", index)) or b""
            buckets.append(sum(word for (word,) in struct.iter_unpack("=Q", value)))
        return ContentionSample(totals, tuple(buckets), read_health(self.probe.map("health")))

    def learn(self) -> int:
        """Find slab_mutex among the mutexes that were waited for so far; 0 while none was recognised."""
        if self.slab_mutex:
            return self.slab_mutex
        for key in self.probe.map("waits").keys():  # noqa: SIM118 -- a BPF map, not a dict
            lock, stack_id, _, _ = _KEY.unpack(key)
            if is_slab_mutex_stack(self._stack(stack_id)):
                self.slab_mutex = lock
                self._configure()
                return self.slab_mutex
        return 0

    async def provoke(self, proc: Path) -> int:
        """Make two tasks read /proc/slabinfo once, together, at most 100 ms, and learn from their wait."""
        if not self.slab_mutex:
            with suppress(KickwatchError):  # unreadable or no helper: then it is learnt from the first natural wait
                async with Helper(["slabinfo", proc / "slabinfo"]) as helper:
                    await helper.ask("read", _LEARN_DEADLINE_S)
        return self.learn()

    def waits(self, before: ContentionSample, after: ContentionSample) -> tuple[Wait, ...]:
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
                Wait(
                    waiter=top_of_stack(stack),
                    holder=holder.rstrip(b"\0").decode(errors="replace") or _UNNAMED,
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

    def _configure(self) -> None:
        self.probe.map("config").put(struct.pack("=I", 0), _CONFIG.pack(self.slab_mutex, self.comm_offset, 0))

    def _stack(self, stack_id: int) -> tuple[str, ...]:
        if stack_id < 0:
            return ()
        if stack_id not in self._stacks:
            self._stacks[stack_id] = read_stack(self.probe.map("stacks"), stack_id, self.symbols)
        return self._stacks[stack_id]


def learn_comm_offset() -> int:
    """Offset of task_struct.comm, found in a copy of our own task after renaming it; 0 when it cannot be found.

    Without BTF there is no other way to name a task by its pointer. The thread renames itself three times: the
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
        copy = probe.map("task").get(struct.pack("=I", 0)) or b""
    finally:
        probe.close()
    return max(0, copy.find(name + b"\0"))
