"""The first rung of the IPI ladder: the probe csd.bpf.c on the tracepoint csd:csd_queue_cpu (6.5 and later)."""

from dataclasses import dataclass, field
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import IpiRung
from kickwatch.observe.layouts import CSD_CONFIG, MANY_RANGES
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols

_MANY = "smp_call_function_many_cond"


def many_ranges(symbols: Symbols) -> list[tuple[int, int]]:
    """(start, end) of each piece of text that only multi-CPU calls run: smp_call_function_many_cond and its clones.

    Where the compiler inlined it, its callers are no substitute: they also run the function on this CPU, and that may
    send other requests. The older name counts only on kernels before "irq_work, smp: Allow irq_work on
    call_single_queue" (5.8); on later ones it is a wrapper. Raises ObserveError: without the text of that function
    every call would look like single requests, and no broadcast would ever be seen.
    """
    ranges = symbols.ranges(_MANY)
    if not ranges and not symbols.ranges("__smp_call_single_queue"):
        ranges = symbols.ranges("smp_call_function_many")
    if not ranges:
        raise no_many("calls to many CPUs cannot be distinguished from single requests")
    if len(ranges) > MANY_RANGES:
        what = f"kallsyms has {len(ranges)} pieces of {_MANY}, the probe has room for {MANY_RANGES}"
        raise ObserveError(what, "report it, with the kernel's release: nothing on this node helps")
    return ranges


def no_many(so_what: str) -> ObserveError:
    """The error where the function of multi-CPU calls has no text of its own: no rung can do without."""
    what = f"kallsyms has no {_MANY} (inlined by the compiler, or a kernel without CONFIG_SMP): {so_what}"
    return ObserveError(what, "another build of this kernel; on this one IPIs can only be counted")


@dataclass
class CsdObserver(RequestObserver):
    """The armed probe. Construct with `arm`; `close` disarms it."""

    RUNG: ClassVar[IpiRung] = IpiRung.CSD
    OBJECT: ClassVar[str] = "csd"
    PROGRAMS: ClassVar[tuple[str, ...]] = ("csd_queue_cpu",)

    _many: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ObserveError if multi-CPU calls cannot be recognised."""
        super().__post_init__()
        self._many = many_ranges(self.symbols)

    def attach(self) -> None:
        self.probe.attach_raw_tracepoint("csd_queue_cpu", "csd_queue_cpu")

    @property
    def places(self) -> str:
        """Where the program is attached, in words."""
        return "tracepoint csd:csd_queue_cpu"

    def _configuration(self, cells: bytes) -> bytes:
        starts, ends = zip(*self._many, *[(0, 0)] * (MANY_RANGES - len(self._many)), strict=True)
        return CSD_CONFIG.pack(cells, *starts, *ends)

    def forget_names(self) -> None:
        """Modules came or went: the kinds of call sites may be wrong now, too."""
        super().forget_names()
        self.probe.map("callsites").clear()
