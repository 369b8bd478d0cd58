"""The report of the 2017 test, and its memory estimate. Pure."""

from dataclasses import dataclass

from kickwatch.experiment.reproduce_verdict import UNPATCHED_FROM, PatchVerdict, Phase, Reproduction, verdict
from kickwatch.model import Control
from kickwatch.observe.interrupts import IpiKind, Reset, rise

MEMORY_SHARE = 0.10
_FATES = {
    "noop": "accepted and ignored by this kernel (since 6.1.y and 6.6)",
    "absent": "absent (as on cgroup v2)",
}


@dataclass(frozen=True)
class Memory:
    """From /proc/meminfo, and the kernel memory charged to the parent of the memcgs (None: unknown). Bytes."""

    available_bytes: int
    percpu_bytes: int
    slab_bytes: int
    parent_kmem_bytes: int | None = None


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
    if isinstance(change, Reset):
        return f"{name}, all CPUs: not counted (the counters were reset: {change.detail})"
    if change.cal is None:
        return f"{name}, all CPUs: not counted (this architecture has no such row)"
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


def control_line(control: Control) -> str:
    """How the positive control ended, and what that means for the figures."""
    if control.passed:
        return f"Control: passed: counted {control.detail}"
    return f"Control: failed, so no broadcast is attributed: {control.detail}"


def verdict_line(found: PatchVerdict) -> str:
    """The verdict with its bounds; no figure where nothing was seen."""
    bounds = "not known how many"
    if found.low is not None and found.high is not None:
        bounds = f"{found.low:.4f}" if found.low == found.high else f"{found.low:.4f} to {found.high:.4f}"
    return (
        f"Verdict: {found.patch} ({bounds} broadcasts per loop during creation, unpatched from {UNPATCHED_FROM}; "
        f"{found.why}). Published, on CPU0: 4.77 without the patch, 0.0101 with it."
    )


def report(run: Reproduction) -> str:
    """The report. Its first line has the published form."""
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
            *([control_line(run.control)] if run.control is not None else []),
            verdict_line(verdict(run)),
        )
    )
