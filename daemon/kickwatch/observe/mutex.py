"""The second rung of the contention ladder, before lock:contention_begin (5.19): kprobes on __mutex_lock, mutex.bpf.c.

What this rung cannot do, and the tracepoints can: the kernel keeps room for as many returns at a time as it has CPUs,
twice; a wait that finds none has no end, and is counted as lost at its task's next one.
"""

from dataclasses import dataclass
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung
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
        """Where the kernel is watched, in words."""
        return "kprobes on " + ", ".join(self._functions)

    @property
    def _functions(self) -> tuple[str, ...]:
        return entries_of(self.symbols, _SLOW_PATH)

    def _attach(self) -> None:
        begin, end = self.PROGRAMS
        if not self._functions:
            raise ObserveError(f"kallsyms has no {_SLOW_PATH}", "waits for mutexes are not seen on this kernel")
        for function in self._functions:
            # The end first, and not only so that no wait lacks one: of two probes in one place the later comes first,
            # and behind the other the stack would end at the trampoline that the caller's address is replaced by.
            self.probe.attach_kprobe(end, function, at_return=True)
            self.probe.attach_kprobe(begin, function)
