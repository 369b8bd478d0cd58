"""The result of the 2017 test: memory estimate, verdict (patched or unpatched), and the lines of the report. Pure.

The published figures (linux-mm, "slab: avoid IPIs when creating kmem caches", 4.12) are CPU0's share for 10000 loops:
+47741 function call interrupts without the patch, +101 with it, so 4.77 and 0.0101 per loop. CPU0's share depends on
where the kernel's workers run (2.95 to 4.40 per loop on a 4-CPU 4.19), so the verdict uses the sum over all CPUs.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from kickwatch.observe.interrupts import InterruptSample, IpiKind, Reset, rise

UNPATCHED_FROM = 0.5  # per loop: a tenth of the fault, fifty times the published figure with the patch
MEMORY_SHARE = 0.10
NOISE_SIGMAS = 3.0
_WAKEUPS = "no probe attributes, and the function call interrupts that the counters show include remote wakeups here"
_FATES = {
    "noop": "accepted and ignored by this kernel (since 6.1.y and 6.6)",
    "absent": "absent (as on cgroup v2)",
}


class Patch(StrEnum):
    """What the test says about the kernel."""

    PATCHED = "patched"
    UNPATCHED = "unpatched"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Reading:
    """One sample, cumulative since boot. `broadcasts`: attributed to the creation path; None without a probe."""

    at_ns: int
    interrupts: InterruptSample
    broadcasts: int | None = None


@dataclass(frozen=True)
class Phase:
    """Creation or removal: readings before and after, the loop's duration, and whether the counters came to rest."""

    before: Reading
    after: Reading
    loop_ns: int
    quiesced: bool

    @property
    def elapsed_s(self) -> float:
        """From reading to reading, asynchronous work included."""
        return (self.after.at_ns - self.before.at_ns) / 1e9


@dataclass(frozen=True)
class Memory:
    """From /proc/meminfo, and the kernel memory charged to the parent of the memcgs (None: unknown). Bytes."""

    available_bytes: int
    percpu_bytes: int
    slab_bytes: int
    parent_kmem_bytes: int | None = None


@dataclass(frozen=True)
class Reproduction:
    """One run of the test. `limit` and `kmem`: what the kernel did with the two limits (see native/reproduce.c)."""

    loops: int
    background_hz: float
    creation: Phase
    removal: Phase
    bytes_per_memcg: int
    limit: str
    kmem: str
    kmem_accounted: bool = True
    wakeups_apart: bool = True  # see `judge_counters`


@dataclass(frozen=True)
class PatchVerdict:
    """`low` and `high` are bounds of the broadcasts per loop; `why` says where they come from."""

    patch: Patch
    low: float
    high: float
    why: str


def parse_meminfo(text: str) -> Memory:
    """Three lines of /proc/meminfo. A line that the kernel does not have counts as 0 (Percpu exists since 4.20)."""
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in text.splitlines() if len(line.split()) > 1}
    return Memory(
        available_bytes=kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024,
        percpu_bytes=kib.get("Percpu", 0) * 1024,
        slab_bytes=kib.get("Slab", 0) * 1024,
    )


def estimate_bytes(before: Memory, after: Memory, memcgs: int) -> int:
    """Memory of one memcg: the growth of the node's figures or of the parent's counter, whichever is larger.

    The parent's counter is exact, but older kernels do not charge everything to it ("mm: memcg: charge memcg percpu
    memory to the parent cgroup", 5.9; struct and kernfs nodes later). The node's figures miss nothing, but include
    other programs.
    """
    node = after.percpu_bytes - before.percpu_bytes + after.slab_bytes - before.slab_bytes
    parent = 0
    if before.parent_kmem_bytes is not None and after.parent_kmem_bytes is not None:
        parent = after.parent_kmem_bytes - before.parent_kmem_bytes
    return max(node, parent, 0) // max(memcgs, 1)


def too_much_memory(bytes_per_memcg: int, memcgs: int, available_bytes: int) -> bool:
    """True if `memcgs` memory cgroups would take more than a tenth of the available memory."""
    return bytes_per_memcg * memcgs > MEMORY_SHARE * available_bytes


def call_rise(before: Reading, after: Reading) -> int | None:
    """Function call interrupts of all CPUs without TLB shootdowns, which x86 counts in CAL too. None: unknown."""
    change = rise(before.interrupts, after.interrupts)
    if isinstance(change, Reset) or change.cal is None:
        return None
    return change.cal - (change.tlb or 0)


def judge(phase: Phase, loops: int, background_hz: float, *, wakeups_apart: bool = True) -> PatchVerdict:
    """Patched below 0.5 broadcasts per loop, unpatched from 0.5 on, unknown if neither is proven.

    If a probe attributed broadcasts to the creation path, their number decides. Otherwise the counters do.
    """
    counted = judge_counters(phase, loops, background_hz, wakeups_apart=wakeups_apart)
    if phase.before.broadcasts is None or phase.after.broadcasts is None:
        return counted
    per_loop = (phase.after.broadcasts - phase.before.broadcasts) / loops
    patch = Patch.UNPATCHED if per_loop >= UNPATCHED_FROM else Patch.PATCHED
    why = "attributed to the creation path"
    if counted.patch not in {patch, Patch.UNKNOWN}:
        why += f"; the counters alone would say {counted.patch}"
    return PatchVerdict(patch, per_loop, per_loop, why)


def judge_counters(phase: Phase, loops: int, background_hz: float, *, wakeups_apart: bool = True) -> PatchVerdict:
    """The verdict from /proc/interrupts alone.

    A broadcast interrupts every other CPU once. So the figure is CAL - TLB over all CPUs, minus the background measured
    before, divided by the number of loops and of other CPUs. The bounds allow for a background that changes by half,
    and for counts that scatter by their square root (3 sigma). Where remote wakeups are among these interrupts, a
    healthy kernel has as many as one per loop and CPU (`detect.classes.wakeups_told_apart`), and they prove nothing.
    """
    others = len(phase.after.interrupts.cpus) - 1
    calls = call_rise(phase.before, phase.after)
    if calls is None:
        return PatchVerdict(Patch.UNKNOWN, 0.0, 0.0, _why_uncounted(phase))
    if others < 1:
        return PatchVerdict(Patch.UNKNOWN, 0.0, 0.0, "there is no other CPU to interrupt")
    expected = background_hz * phase.elapsed_s
    doubt = expected / 2 + NOISE_SIGMAS * sqrt(max(calls, 0) + 1)
    low = max(0.0, calls - expected - doubt) / loops / others
    high = max(0.0, calls - expected + doubt) / loops / others
    if not wakeups_apart:
        return PatchVerdict(Patch.UNKNOWN, low, high, _WAKEUPS)
    if high < UNPATCHED_FROM:
        return PatchVerdict(Patch.PATCHED, low, high, "from the counters")
    if low >= UNPATCHED_FROM:
        return PatchVerdict(Patch.UNPATCHED, low, high, "from the counters")
    return PatchVerdict(Patch.UNKNOWN, low, high, "too few loops: other interrupts on this node hide the result")


def verdict(run: Reproduction) -> PatchVerdict:
    """The verdict on the creation phase. Without kernel memory accounting the test cannot show the fault."""
    if not run.kmem_accounted:
        return PatchVerdict(Patch.UNKNOWN, 0.0, 0.0, "the kernel was booted with cgroup.memory=nokmem")
    return judge(run.creation, run.loops, run.background_hz, wakeups_apart=run.wakeups_apart)


def _why_uncounted(phase: Phase) -> str:
    change = rise(phase.before.interrupts, phase.after.interrupts)
    if isinstance(change, Reset):
        return f"the counters were reset: {change.detail}"
    return "this architecture counts no function call interrupts"


def published_line(loops: int, phase: Phase) -> str:
    """`10000 loops: A => B (+C ipis)` of the first CPU. B is read after the asynchronous work."""
    before, after = phase.before.interrupts.row(IpiKind.CAL), phase.after.interrupts.row(IpiKind.CAL)
    if not before or not after:
        return f"{loops} loops: no row of function call interrupts"
    cpu = min(before)
    if cpu not in after:
        return f"{loops} loops: CPU{cpu} went away"
    return f"{loops} loops: {before[cpu]} => {after[cpu]} ({after[cpu] - before[cpu]:+d} ipis)"


def all_cpus_line(name: str, loops: int, phase: Phase, background_hz: float) -> str:
    """One phase over all CPUs: as published, and per loop and other CPU."""
    change = rise(phase.before.interrupts, phase.after.interrupts)
    if isinstance(change, Reset) or change.cal is None:
        return f"{name}, all CPUs: not counted ({_why_uncounted(phase)})"
    cpus = len(phase.after.interrupts.cpus)
    totals = [sum((reading.interrupts.row(IpiKind.CAL) or {}).values()) for reading in (phase.before, phase.after)]
    tlb = change.tlb or 0
    shootdowns = "no row of TLB shootdowns" if change.tlb is None else f"{tlb} of them TLB shootdowns"
    text = f"{name}, all {cpus} CPUs: {totals[0]} => {totals[1]} (+{change.cal} ipis, {shootdowns})"
    if cpus < 2:
        return text
    expected = background_hz * phase.elapsed_s
    return f"{text}; {(change.cal - tlb - expected) / loops / (cpus - 1):.4f} per loop and other CPU above background"


def duration_line(name: str, phase: Phase) -> str:
    """How long the loop took, and for how long its asynchronous work was watched."""
    rest = "then at rest" if phase.quiesced else "not at rest at the end"
    loop_s = phase.loop_ns / 1e9
    return f"{name}: {loop_s:.2f} s, watched for {max(0.0, phase.elapsed_s - loop_s):.1f} s more, {rest}"


def limits_line(limit: str, kmem: str) -> str:
    """What the kernel did with the limits that the published test sets."""
    return f"Limits: memory {_fate(limit)}; kernel memory {_fate(kmem)}"


def _fate(fate: str) -> str:
    word, _, errno = fate.partition(":")
    if errno:
        return f"{word} with errno {errno}{' (since 5.16)' if errno == '524' else ''}"
    return _FATES.get(word, word)


def report(run: Reproduction) -> str:
    """The report. Its first line has the published form."""
    found = verdict(run)
    bounds = f"{found.low:.4f}" if found.low == found.high else f"{found.low:.4f} to {found.high:.4f}"
    removal = published_line(run.loops, run.removal)
    return "\n".join(
        (
            published_line(run.loops, run.creation),
            all_cpus_line("Creation", run.loops, run.creation, run.background_hz),
            duration_line("Creation", run.creation),
            f"Removal, as above: {removal.partition(': ')[2]}",
            all_cpus_line("Removal", run.loops, run.removal, run.background_hz),
            duration_line("Removal", run.removal),
            f"Background before: {run.background_hz:.1f} function call interrupts per second, without TLB shootdowns",
            limits_line(run.limit, run.kmem),
            f"Memory: {run.bytes_per_memcg / 1024:.0f} KiB per memory cgroup",
            f"Verdict: {found.patch} ({bounds} broadcasts per loop during creation, unpatched from {UNPATCHED_FROM}; "
            f"{found.why}). Published, on CPU0: 4.77 without the patch, 0.0101 with it.",
        )
    )
