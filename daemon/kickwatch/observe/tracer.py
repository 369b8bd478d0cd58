"""Lists single events for `kickwatch trace`: the probe trace.bpf.c, armed beside the probe that counts.

Needs the tracepoints csd:csd_queue_cpu and csd_function_entry (6.5), and the first rung of the counting probe, whose
maps it uses. The daemon never loads it.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from kickwatch.errors import ObserveError
from kickwatch.model import IpiRung
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.layouts import TRACE_CONFIG
from kickwatch.observe.losses import Lost, causes
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import INDEX, read_stack, sums_of
from kickwatch.observe.ring import Ring
from kickwatch.observe.rungs import IPI_VARIABLE, requested_rung
from kickwatch.observe.task_layout import learn_comm_offset
from kickwatch.observe.trace_events import Kind, Losses

OBJECT = "trace"
RING_BYTES = 1 << 24  # a power of two: room for two million events a second if it is emptied ten times
# Program by tracepoint. The targets' side and the ends of waits first: what begins has its end.
PROGRAMS = {
    "trace_exit": "csd_function_exit",
    "trace_entry": "csd_function_entry",
    "trace_queue": "csd_queue_cpu",
    "trace_exec": "sched_process_exec",
    "trace_end": "sched_process_exit",
    "trace_taken": "contention_end",
    "trace_wait": "contention_begin",
    "trace_mkdir": "cgroup_mkdir",
    "trace_rmdir": "cgroup_rmdir",
}
_UNUSED_MAPS = ("cells", "hits", "certain_funcs", "far_targets")  # of cells.h
_REMEDY = "`kickwatch trial` counts requests here; a trace needs Linux 6.5 or later"


@dataclass
class Tracer:
    """The armed probe. `records`: what it listed so far, oldest first. `close` disarms it."""

    probe: BpfObject
    observatory: Observatory
    records: list[bytes] = field(default_factory=list)
    _ring: Ring = field(init=False)
    _comm_offset: int = 0
    _stacks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _skipped: int = 0

    def __post_init__(self) -> None:
        """Raises ObserveError if the ring cannot be read."""
        self._ring = Ring(self.probe.map("ring"), self.records.append)

    @classmethod
    def arm(cls, observatory: Observatory, ring_bytes: int = RING_BYTES) -> Self:
        """Load and attach, listing nothing yet. Blocks; arming broadcasts. Raises ObserveError: what is missing."""
        counting = observatory.requests
        if not isinstance(counting, CsdObserver):
            why, remedy = _why_not_counting(observatory)
            raise ObserveError(f"no trace on this kernel: single requests cannot be listed ({why})", remedy)
        comm_offset = 0
        with suppress(ObserveError):  # then tasks have no names
            comm_offset = learn_comm_offset()
        shared = {name: counting.probe.map(name) for name in ("config", "callsites")}
        sizes = dict.fromkeys(_UNUSED_MAPS, 1) | {"each_cpu": counting.targets, "ring": ring_bytes}
        try:
            probe = BpfObject(OBJECT, max_entries=sizes, shared=shared)
        except ObserveError as error:
            what = f"no trace on this kernel: it refused the probe or its ring buffer, which needs 5.8 ({error.what})"
            raise ObserveError(what, error.remedy or _REMEDY) from error
        try:
            tracer = cls(probe, observatory, _comm_offset=comm_offset)
            tracer._attach()
        except BaseException:
            probe.close()
            raise
        return tracer

    def _attach(self) -> None:
        try:
            for program, tracepoint in PROGRAMS.items():
                self.probe.attach_raw_tracepoint(program, tracepoint)
        except ObserveError as error:
            raise ObserveError(f"no trace on this kernel: {error.what}", error.remedy or _REMEDY) from error

    def switch(self, *, on: bool) -> None:
        """Begin, or end, to list events. Raises ObserveError."""
        if on:
            self._skipped = self._misses()
        self.probe.map("tracing").put(INDEX.pack(0), TRACE_CONFIG.pack(on, self._comm_offset))

    def drain(self) -> int:
        """Move what the ring holds to `records`; returns the number of events. Raises ObserveError."""
        return self._ring.consume()

    def losses(self) -> Losses:
        """What is missing from `records` after the last `drain`. Raises ObserveError."""
        counts = sums_of(self.probe.map("losses"), range(len(Kind) + 1))
        return Losses(counts[0], {kind: counts[kind] for kind in Kind if counts[kind]}, self._misses() - self._skipped)

    def _misses(self) -> int:
        return sum(self.probe.run_statistics(program)[2] for program in ("trace_queue", "trace_entry", "trace_exit"))

    def stack(self, stack_id: int) -> tuple[str, ...]:
        """Function names, innermost first; empty if the stack was not taken. Raises ObserveError."""
        if stack_id < 0:
            return ()
        if stack_id not in self._stacks:
            found = read_stack(self.probe.map("stacks"), stack_id, self.observatory.symbols)
            self._stacks[stack_id] = found
        return self._stacks[stack_id]

    def cost(self) -> tuple[int, int]:
        """(ns, runs) of all its programs; both rise only while BPF statistics are on."""
        spent = [self.probe.run_statistics(program) for program in PROGRAMS]
        return sum(ns for ns, _, _ in spent), sum(runs for _, runs, _ in spent)

    def close(self) -> None:
        """Disarm and free. Safe to call twice."""
        self.probe.detach()
        self._ring.close()
        self.probe.close()


def _why_not_counting(observatory: Observatory) -> tuple[str, str]:
    """(why the first rung is not armed, the remedy). What keeps kprobes away does not matter: they list no requests."""
    forced = requested_rung(os.environ, IPI_VARIABLE, IpiRung)
    if forced not in (None, IpiRung.CSD):
        return f"{IPI_VARIABLE}={forced} leaves the tracepoint out", f"unset it; {_REMEDY}"
    losses = [*observatory.lost(Lost.NAMES), *observatory.lost(Lost.REQUESTS, Lost.BETTER_REQUESTS)]
    why, remedy = causes(losses[:1])  # of the ladder's first rung
    return why or "the first rung is not armed", remedy or _REMEDY
