"""The second rung of the IPI ladder, before csd:csd_queue_cpu (6.5): kprobes on what every request passes, calls.bpf.c.

Which functions those are differs by kernel, and compilers rename and clone them: `plan_of` finds them in kallsyms.
What this rung cannot do, and csd can: tell an interrupt's single request that came while the same CPU was in a probe
(the kernel passes it over; calls to many CPUs are never sent from interrupts), and count, for a call with a condition
(TLB shootdowns, mostly), a chosen CPU that needs no interrupt because its queue was not empty.
"""

import struct
from dataclasses import dataclass, field
from typing import ClassVar

from kickwatch.errors import ObserveError
from kickwatch.model import IpiRung
from kickwatch.node import kernel
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols

MASK_WORDS = 16
_WORD_BITS = 64
_END = struct.Struct(f"=II{MASK_WORDS}Q")  # the end of struct calls_config
_HAS_COND, _HAS_INNER, _HAS_SENT, _HAS_NODE = 1, 2, 4, 8

# What hands the chosen CPUs to the interrupt controller: x86, x86 under Xen (smp_ops), arm64. A kernel has several and
# calls one.
_SEND_MANY = ("native_send_call_func_ipi", "xen_smp_send_call_function_ipi", "arch_send_call_function_ipi_mask")
_SEND_ONE = ("send_call_function_single_ipi", "call_function_single_prep_ipi")  # the latter since 6.4
_QUEUE = "__smp_call_single_queue"
_SINGLES = (("calls_single", "smp_call_function_single"), ("calls_async", "smp_call_function_single_async"))


@dataclass(frozen=True)
class ProbePlan:
    """Which program goes to which function, and what the kernel's functions are like.

    `has_cond`: smp_call_function_many_cond, "smp: Add a smp_cond_func_t argument to smp_call_function_many()" (5.6).
    `has_inner`: with one target it calls smp_call_function_single, until "smp: Run functions concurrently in
    smp_call_function_many_cond()" (5.13). `has_sent`: what a condition chose can be seen. `has_node`: remote wakeups
    and irq_work are such requests, "irq_work, smp: Allow irq_work on call_single_queue" (5.8).
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
    """Names under which a function can be entered: itself and its clones (`.isra.0`, `.constprop.0`).

    A part (`.part.0`) is entered from the function itself, so it stands in only where that was inlined. `.cold` is
    jumped to.
    """
    found = dict.fromkeys(symbols.resolve(start) for start, _ in symbols.ranges(name))
    whole = tuple(full for full in found if not {"cold", "part"}.intersection(full.split(".")))
    return whole or tuple(full for full in found if "cold" not in full.split("."))


def plan_of(symbols: Symbols) -> ProbePlan:
    """The functions to probe. Raises ObserveError where a kind of request could pass unseen."""
    many = entries_of(symbols, "smp_call_function_many_cond")
    queue = entries_of(symbols, _QUEUE)
    has_cond = bool(many)
    if not many and not queue:
        many = entries_of(symbols, "smp_call_function_many")
    if not many:
        what = "kallsyms has no smp_call_function_many_cond, so calls to many CPUs have no place for a kprobe"
        raise ObserveError(what, "the kernel's compiler inlined it; IPIs are only counted here")
    send_many = tuple(name for sender in _SEND_MANY for name in entries_of(symbols, sender))
    send_one = _first(symbols, _SEND_ONE)
    has_sent = has_cond and bool(send_many) and bool(send_one)
    probes = _placed("calls_sent_many", send_many) + _placed("calls_sent_one", send_one) if has_sent else ()
    for program, function in _SINGLES:
        names = entries_of(symbols, function)
        if not names:
            raise ObserveError(f"kallsyms has no {function}", "report it, with the kernel's release")
        probes += _placed(program, names)
    return ProbePlan(
        probes=(*probes, *_placed("calls_queued", queue), *_placed("calls_many", many)),
        has_cond=has_cond,
        # "smp: Inline on_each_cpu_cond() and on_each_cpu()" (5.13) is of the same series as the end of the inner call.
        has_inner=bool(symbols.ranges("on_each_cpu")),
        has_sent=has_sent,
        has_node=bool(queue),
    )


def _placed(program: str, functions: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((program, function) for function in functions)


def _first(symbols: Symbols, names: tuple[str, ...]) -> tuple[str, ...]:
    """Where the first of the functions that this kernel has can be entered."""
    return next(filter(None, (entries_of(symbols, name) for name in names)), ())


def mask_words(possible: list[int]) -> int:
    """Words of a CPU mask of this kernel. Raises ObserveError beyond 1024 CPUs."""
    words = max(possible, default=0) // _WORD_BITS + 1
    if words > MASK_WORDS:
        what = f"CPUs up to {max(possible)}: the kprobes read masks of {MASK_WORDS * _WORD_BITS} CPUs"
        raise ObserveError(what, "a kernel with csd:csd_queue_cpu (6.5) has no such limit")
    return words


def mask_of(cpus: list[int]) -> tuple[int, ...]:
    """The CPUs as the words of a mask."""
    words = [0] * MASK_WORDS
    for cpu in cpus:
        words[cpu // _WORD_BITS] |= 1 << cpu % _WORD_BITS
    return tuple(words)


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

    online: list[int] = field(default_factory=kernel.online)
    possible: list[int] = field(default_factory=kernel.possible)
    plan: ProbePlan = field(init=False)

    def __post_init__(self) -> None:
        """Raises ObserveError where the functions to probe are not to be found, or there are too many CPUs."""
        super().__post_init__()
        self.plan = plan_of(self.symbols)
        mask_words(self.possible)

    def _attach(self) -> None:
        for program, function in self.plan.probes:
            self.probe.attach_kprobe(program, function)

    @property
    def places(self) -> str:
        """Where the kernel is watched, in words."""
        told = "kprobes on " + ", ".join(function for _, function in self.plan.probes)
        if self.plan.has_cond and not self.plan.has_sent:
            told += "; calls with a condition count every CPU that it might choose, and are no broadcasts"
        return told

    def follow_cpus(self, online: list[int]) -> None:
        """Also when their number is the same: the probe has the mask of the CPUs themselves."""
        if online != self.online:
            self.online, self.cpus_online = online, len(online)
            self.configure()

    def _own_configuration(self) -> bytes:
        """Length of the kernel's masks, what its functions are like, the CPUs that are online."""
        return _END.pack(mask_words(self.possible), self.plan.flags, *mask_of(self.online))
