"""The second rung of the contention ladder, before lock:contention_begin (5.19): kprobes on __mutex_lock, mutex.bpf.c.

Unlike the tracepoints, this rung can miss the end of a wait: the kernel has room for twice as many pending returns as
it has CPUs. A wait without room has no end, and is counted as lost at the next wait of its task.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung
from kickwatch.node.causes import TRACEPOINTS_FOR_WAITS
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.kprobe import entries_of

_SLOW_PATH = "__mutex_lock"


@dataclass
class MutexObserver(ContentionObserver):
    """The armed kprobes. Construct with `arm`; `close` disarms them."""

    RUNG: ClassVar[ContentionRung] = ContentionRung.KPROBE
    OBJECT: ClassVar[str] = "mutex"
    PROGRAMS: ClassVar[tuple[str, str]] = ("mutex_begin", "mutex_end")

    @property
    def places(self) -> str:
        """Where the programs are attached, in words."""
        return "kprobes on " + ", ".join(self._functions)

    def _owner_found(self) -> int:
        return 0  # a kernel with PREEMPT_RT has no __mutex_lock

    @property
    def _probed(self) -> tuple[str, ...]:
        return self._functions

    @cached_property
    def _functions(self) -> tuple[str, ...]:
        return entries_of(self.symbols, _SLOW_PATH)

    def _attach(self) -> None:
        begin, end = self.PROGRAMS
        if not self._functions:
            what = f"kallsyms has no {_SLOW_PATH}, which PREEMPT_RT replaces and a compiler may inline"
            raise ObserveError(what, TRACEPOINTS_FOR_WAITS)
        places = self.symbols.places(self._functions)
        for function in self._functions:
            # The end first, for two reasons: no wait begins whose end is missed; and of two probes in one place the one
            # attached later runs first. If it ran second, its stack would end at the trampoline that the return probe
            # puts in place of the caller's address.
            self.probe.attach_kprobe(end, function, places[function], at_return=True)
            self.probe.attach_kprobe(begin, function, places[function])
