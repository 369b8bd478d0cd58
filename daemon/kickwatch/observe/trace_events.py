"""What the probe trace.bpf.c lists: one event, with the numbers that the kernel has for functions, stacks and tasks."""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from kickwatch.observe.layouts import TRACE_EVENT

MULTI, UNDER_SLAB_MUTEX, BEGINS, BANK = 1, 2, 4, 8  # TRACE_... of trace.bpf.c


class Kind(IntEnum):
    """`enum trace_kind` of trace.bpf.c."""

    REQUEST = 1
    ENTRY = 2
    EXIT = 3
    EXEC = 4
    END = 5
    WAIT = 6
    TAKEN = 7
    MKDIR = 8
    RMDIR = 9


class TraceEvent(NamedTuple):
    """One event. `at_ns`: CLOCK_MONOTONIC. `cpu`: where it happened. `tid`, `pid`, `comm`: of the task there.

    `func`, `csd`: addresses. `stack`: an id of the probe, negative if it was not taken. `text`: the path of a cgroup,
    or the name of the task that holds slab_mutex.
    """

    at_ns: int
    func: int
    csd: int
    kind: int
    cpu: int
    target: int
    stack: int
    flags: int
    tid: int
    pid: int
    comm: str
    text: str = ""

    @property
    def bank(self) -> int:
        """The bank in which the counting probe counted it."""
        return 1 if self.flags & BANK else 0


class Losses(NamedTuple):
    """Events that found the ring full. `calls`: multi-CPU calls whose first request is among them.

    `skipped`: events during which the same program was already running on that CPU; an interrupt sent them, and no
    interrupt makes a multi-CPU call. They are requests, or functions at their targets.
    """

    calls: int = 0
    by_kind: Mapping[Kind, int] = {}
    skipped: int = 0

    @property
    def events(self) -> int:
        """All of them."""
        return sum(self.by_kind.values()) + self.skipped


def event_of(record: bytes) -> TraceEvent:
    """A record of the ring. Raises struct.error if it is shorter than an event."""
    at_ns, func, csd, kind, cpu, target, stack, flags, tid, pid, _, comm = TRACE_EVENT.packed.unpack_from(record)
    text = _string(record[TRACE_EVENT.size :])
    return TraceEvent(at_ns, func, csd, kind, cpu, target, stack, flags, tid, pid, _string(comm), text)


def _string(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
