"""The first rung of the IPI ladder: the probe csd.bpf.c on the tracepoint csd:csd_queue_cpu (6.5 and later)."""

import struct
from dataclasses import dataclass, field
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import IpiRung
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols

_RANGES = struct.Struct("=4Q4Q")  # the end of struct csd_config
_MANY_RANGES = 4


def many_ranges(symbols: Symbols) -> list[tuple[int, int]]:
    """(start, end) of each piece of text that only multi-CPU calls run: smp_call_function_many_cond and its clones.

    Where it is inlined into its callers they are no substitute: they run the function on this CPU too, and it may send
    requests of its own. Its older name counts only on kernels before "irq_work, smp: Allow irq_work on
    call_single_queue" (5.8); later it is a wrapper. Raises ObserveError: without it every call would look like single
    requests, and no broadcast would ever be seen.
    """
    name = "smp_call_function_many_cond"
    ranges = symbols.ranges(name)
    if not ranges and not symbols.ranges("__smp_call_single_queue"):
        ranges = symbols.ranges("smp_call_function_many")
    if not ranges:
        what = f"kallsyms has no {name}, so calls to many CPUs cannot be told from single requests"
        raise ObserveError(what, "the kernel's compiler inlined it; IPIs are only counted here")
    if len(ranges) > _MANY_RANGES:
        what = f"kallsyms has {len(ranges)} pieces of {name}, the probe has room for {_MANY_RANGES}"
        raise ObserveError(what, "report it, with the kernel's release")
    return ranges


@dataclass
class CsdObserver(RequestObserver):
    """The armed probe. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[IpiRung] = IpiRung.CSD
    OBJECT: ClassVar[str] = "csd"
    PROGRAMS: ClassVar[tuple[str, ...]] = ("csd_queue_cpu",)

    _many: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ObserveError where a multi-CPU call cannot be told."""
        self._many = many_ranges(self.symbols)
        super().__post_init__()

    def _attach(self) -> None:
        self.probe.attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")

    @property
    def places(self) -> str:
        """Where the kernel is watched, in words."""
        return "tracepoint csd:csd_queue_cpu"

    def _own_configuration(self) -> bytes:
        """Text of the multi-CPU caller."""
        starts, ends = zip(*self._many, *[(0, 0)] * (_MANY_RANGES - len(self._many)), strict=True)
        return _RANGES.pack(*starts, *ends)

    def forget_names(self) -> None:
        """Modules came or went: what was learnt of call sites may hold no more either."""
        super().forget_names()
        self.probe.map("callsites").clear()
