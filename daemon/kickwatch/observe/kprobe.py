"""The second rung of the IPI ladder, before csd:csd_queue_cpu (6.5): kprobes on the functions that send, calls.bpf.c.

Which functions those are differs by kernel, and compilers rename and clone them: `plan_of` finds them in kallsyms.

Two things that the first rung counts are missing here. A single request from an interrupt that arrives while a probe
runs on the same CPU: the kernel does not run the probe again (calls to many CPUs are never sent from interrupts). And
for a call with a condition (mostly TLB shootdowns), a CPU that is chosen but needs no interrupt, since its queue was
not empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import IpiRung
from kickwatch.node.causes import TRACEPOINT_FOR_IPIS
from kickwatch.observe.csd import no_many
from kickwatch.observe.layouts import BANKS, CALLS_CONFIG
from kickwatch.observe.masks import WORD_BITS, mask_of, mask_words
from kickwatch.observe.request_maps import BankFigures, MaskCalls, has_room
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols

_HAS_COND, _HAS_INNER, _HAS_SENT, _HAS_NODE = 1, 2, 4, 8

# The functions that hand the chosen CPUs to the interrupt controller: x86, x86 under Xen (smp_ops), arm64. A kernel has
# several of them and calls one.
_SEND_MANY = ("native_send_call_func_ipi", "xen_smp_send_call_function_ipi", "arch_send_call_function_ipi_mask")
_SEND_ONE = ("send_call_function_single_ipi", "call_function_single_prep_ipi")  # the latter since 6.4
_QUEUE = "__smp_call_single_queue"
_SINGLES = (("calls_single", "smp_call_function_single"), ("calls_async", "smp_call_function_single_async"))


@dataclass(frozen=True)
class ProbePlan:
    """Which program is attached to which function, and how the kernel's functions behave.

    `has_cond`: smp_call_function_many_cond, "smp: Add a smp_cond_func_t argument to smp_call_function_many()" (5.6).
    `has_inner`: with one target it calls smp_call_function_single, until "smp: Run functions concurrently in
    smp_call_function_many_cond()" (5.13). `has_sent`: the CPUs that a condition chose can be observed. `has_node`:
    remote wakeups and irq_work are such requests, "irq_work, smp: Allow irq_work on call_single_queue" (5.8).
    """

    probes: tuple[tuple[str, str], ...]
    has_cond: bool
    has_inner: bool
    has_sent: bool
    has_node: bool

    @property
    def flags(self) -> int:
        """As `struct calls_config` has them."""
        present = (self.has_cond, self.has_inner, self.has_sent, self.has_node)
        bits = (_HAS_COND, _HAS_INNER, _HAS_SENT, _HAS_NODE)
        return sum(bit for has, bit in zip(present, bits, strict=True) if has)


def entries_of(symbols: Symbols, name: str) -> tuple[str, ...]:
    """Names under which a function can be entered: its own and those of its clones (`.isra.0`, `.constprop.0`).

    A part (`.part.0`) is entered from the function itself, so it counts only where that was inlined. `.cold` is never
    entered by a call.
    """
    found = dict.fromkeys(symbols.resolve(start) for start, _ in symbols.ranges(name))
    whole = tuple(full for full in found if not {"cold", "part"}.intersection(full.split(".")))
    return whole or tuple(full for full in found if "cold" not in full.split("."))


def plan_of(symbols: Symbols) -> ProbePlan:
    """The functions to probe. Raises ObserveError if some kind of request would not be seen."""
    many = entries_of(symbols, "smp_call_function_many_cond")
    queue = entries_of(symbols, _QUEUE)
    has_cond = bool(many)
    if not many and not queue:
        many = entries_of(symbols, "smp_call_function_many")
    if not many:
        raise no_many("there is no function to probe for calls to many CPUs")
    send_many = tuple(name for sender in _SEND_MANY for name in entries_of(symbols, sender))
    send_one = _first(symbols, _SEND_ONE)
    has_sent = has_cond and bool(send_many) and bool(send_one)
    probes = _attached("calls_sent_many", send_many) + _attached("calls_sent_one", send_one) if has_sent else ()
    for program, function in _SINGLES:
        names = entries_of(symbols, function)
        if not names:
            what = f"kallsyms has no {function}, so some single requests would not be counted"
            raise ObserveError(what, f"{TRACEPOINT_FOR_IPIS}; and report it, with the kernel's release")
        probes += _attached(program, names)
    return ProbePlan(
        probes=(*probes, *_attached("calls_queued", queue), *_attached("calls_many", many)),
        has_cond=has_cond,
        # "smp: Inline on_each_cpu_cond() and on_each_cpu()" (5.13) is in the same series as the end of the inner call.
        has_inner=bool(symbols.ranges("on_each_cpu")),
        has_sent=has_sent,
        has_node=bool(queue),
    )


def _attached(program: str, functions: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((program, function) for function in functions)


def _first(symbols: Symbols, names: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of the first function that this kernel has."""
    return next(filter(None, (entries_of(symbols, name) for name in names)), ())


@dataclass
class KprobeObserver(RequestObserver):
    """The armed kprobes. Construct with `arm`; `close` disarms them."""

    RUNG: ClassVar[IpiRung] = IpiRung.KPROBE
    OBJECT: ClassVar[str] = "calls"
    PROGRAMS: ClassVar[tuple[str, ...]] = (
        "calls_many",
        "calls_queued",
        "calls_single",
        "calls_async",
        "calls_sent_many",
        "calls_sent_one",
    )

    plan: ProbePlan = field(init=False)
    _calls: list[MaskCalls] = field(default_factory=lambda: [MaskCalls() for _ in range(BANKS)])

    def __post_init__(self) -> None:
        """Raises ObserveError if the functions to probe cannot be found, or there are too many CPUs."""
        self.plan = plan_of(self.symbols)
        super().__post_init__()
        mask_words(self.possible)

    def attach(self) -> None:
        places = self.symbols.places(self._probed())
        for program, function in self.plan.probes:
            self.probe.attach_kprobe(program, function, places[function])

    def _probed(self) -> frozenset[str]:
        return frozenset(function for _, function in self.plan.probes)

    @property
    def places(self) -> str:
        """Where the programs are attached, in words."""
        text = "kprobes on " + ", ".join(function for _, function in self.plan.probes)
        if self.plan.has_cond and not self.plan.has_sent:
            text += "; calls with a condition count every CPU that it might choose as a target, and are no broadcasts"
        return text

    @classmethod
    def _keys(cls, possible: Sequence[int]) -> dict[str, int]:
        return {"masks": (1 + mask_words(possible)) * WORD_BITS // 8}

    def _configuration(self, cells: bytes) -> bytes:
        return CALLS_CONFIG.pack(cells, mask_words(self.possible), self.plan.flags, *mask_of(self.online))

    def _read_bank(self, bank: int) -> BankFigures:
        self._calls[bank].follow(self.probe, bank, self.isolated)
        return self._calls[bank].added_to(super()._read_bank(bank))

    def _has_room(self) -> bool:
        return super()._has_room() and has_room(self.probe, "masks")

    def _forget_all(self) -> None:
        super()._forget_all()
        self.probe.map("masks").clear()
        self._calls = [MaskCalls() for _ in range(BANKS)]
