"""The verdict of the 2017 test: patched, unpatched, or unknown with its reason. Pure.

The published figures (linux-mm, "slab: avoid IPIs when creating kmem caches", 4.12) are CPU0's share for 10000 loops:
+47741 function call interrupts without the patch, +101 with it, so 4.77 and 0.0101 per loop. CPU0's share depends on
where the kernel's workers run (2.95 to 4.40 per loop on a 4-CPU 4.19), so the verdict uses the sum over all CPUs.

There are two sources: what a probe attributes to the creation path, if it passed its positive control, and the rows of
/proc/interrupts. Broadcasts that were seen count. That none was seen proves nothing if the probe lost requests, or if
the interrupts show what the probe's figures do not explain.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from kickwatch.model import Control
from kickwatch.observe.interrupts import InterruptSample, Reset, rise
from kickwatch.observe.request_cells import RequestCounts

UNPATCHED_FROM = 0.5  # per loop: a tenth of the fault, fifty times the published figure with the patch
LOST_SHARE = 100  # one lost request in so many counted ones is tolerated, as in the windows of a trial
NOISE_SIGMAS = 3.0
_WAKEUPS = "no probe attributes, and the function call interrupts that the counters show include remote wakeups here"


class Patch(StrEnum):
    """What the test says about the kernel."""

    PATCHED = "patched"
    UNPATCHED = "unpatched"
    UNKNOWN = "unknown"


class Wakeups(StrEnum):
    """Whether remote wakeups are among the function call interrupts of /proc/interrupts."""

    APART = "apart"  # few or none: the counters alone give a verdict
    PROBED = "probed"  # they are, and only compared with a probe, which counts them too, do the counters say anything
    INCLUDED = "included"  # they are, and the counters say nothing


@dataclass(frozen=True)
class Reading:
    """One sample, cumulative. `probed`: None without a probe that passed its positive control."""

    at_ns: int
    interrupts: InterruptSample
    probed: RequestCounts | None = None


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

    @property
    def other_cpus(self) -> int:
        """CPUs that a broadcast interrupts."""
        return len(self.after.interrupts.cpus) - 1

    @property
    def probed(self) -> RequestCounts | None:
        """What the probe counted in it."""
        if self.before.probed is None or self.after.probed is None:
            return None
        return RequestCounts(*(late - early for early, late in zip(self.before.probed, self.after.probed, strict=True)))


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
    wakeups: Wakeups = Wakeups.APART
    control: Control | None = None


@dataclass(frozen=True)
class PatchVerdict:
    """`why` says what the verdict rests on. `low` and `high` are bounds of the broadcasts per loop; None: not known."""

    patch: Patch
    why: str
    low: float | None = None
    high: float | None = None


def call_rise(before: Reading, after: Reading) -> int | None:
    """Function call interrupts of all CPUs without TLB shootdowns, which x86 counts in CAL too. None: unknown."""
    change = rise(before.interrupts, after.interrupts)
    if isinstance(change, Reset) or change.cal is None:
        return None
    return change.cal - (change.tlb or 0)


def verdict(run: Reproduction) -> PatchVerdict:
    """The verdict on the creation phase. Without kernel memory accounting the test cannot show the fault."""
    if not run.kmem_accounted:
        return PatchVerdict(Patch.UNKNOWN, "the kernel was booted with cgroup.memory=nokmem")
    return judge(run.creation, run.loops, run.background_hz, run.wakeups)


def judge(phase: Phase, loops: int, background_hz: float, wakeups: Wakeups = Wakeups.APART) -> PatchVerdict:
    """Patched below 0.5 broadcasts per loop, unpatched from 0.5 on, unknown if neither is proven.

    If a probe attributed broadcasts to the creation path, their number decides. Otherwise the counters do.
    """
    if void := _why_void(phase):
        return PatchVerdict(Patch.UNKNOWN, void)
    counted = judge_counters(phase, loops, background_hz, wakeups)
    seen = phase.probed
    if seen is None:
        return counted
    low, high = seen.created / loops, (seen.broadcasts + seen.lost) / loops
    patch = Patch.UNPATCHED if low >= UNPATCHED_FROM else Patch.PATCHED
    shown = judge_counters(phase, loops, background_hz) if wakeups is Wakeups.PROBED else counted
    if patch is Patch.PATCHED and (doubt := _doubt(phase, seen, loops, shown)):
        return PatchVerdict(Patch.UNKNOWN, doubt)
    why = "attributed to the creation path"
    if counted.patch not in {patch, Patch.UNKNOWN}:
        why += f"; the counters alone would say {counted.patch}"
    return PatchVerdict(patch, why, low, high)


def _why_void(phase: Phase) -> str:
    """Why neither source can show anything; empty if they can."""
    change = rise(phase.before.interrupts, phase.after.interrupts)
    if isinstance(change, Reset):
        return f"the counters were reset: {change.detail}"
    return "there is no other CPU to interrupt" if phase.other_cpus < 1 else ""


def _doubt(phase: Phase, seen: RequestCounts, loops: int, counted: PatchVerdict) -> str:
    """Why it proves nothing that the probe attributed too few broadcasts; empty if it does prove something.

    The counters contradict the probe if they alone say unpatched, and its requests from elsewhere do not explain that.
    """
    if unseen := _unseen(phase, seen, loops):
        return unseen
    if seen.broadcasts + seen.lost >= UNPATCHED_FROM * loops:
        others = seen.broadcasts - seen.created + seen.lost
        return f"{others} broadcasts from elsewhere, or lost, may be the creation path's: try more loops (-n)"
    change = rise(phase.before.interrupts, phase.after.interrupts)
    if counted.patch is not Patch.UNPATCHED or isinstance(change, Reset) or change.cal is None:
        return ""
    unexplained = (change.cal - seen.elsewhere) / loops / phase.other_cpus
    if unexplained < UNPATCHED_FROM:
        return ""
    return (
        f"the probe attributes {seen.created / loops:.4f} broadcasts per loop to the creation path, but the counters "
        f"show {unexplained:.2f} function call interrupts per loop and other CPU that no other request explains"
    )


def _unseen(phase: Phase, seen: RequestCounts, loops: int) -> str:
    """Why the probe may have missed broadcasts, or some may have come after the end; empty if not."""
    if not seen.requests:
        return "the probe counted no request at all: something silenced it"
    if seen.lost * LOST_SHARE > seen.requests:
        return f"the probe counted {seen.requests} requests and lost {seen.lost}"
    if not phase.quiesced and 2 * seen.created >= UNPATCHED_FROM * loops:
        return f"not at rest at the end, after {seen.created} broadcasts of the creation path: try fewer loops (-n)"
    return ""


def judge_counters(phase: Phase, loops: int, background_hz: float, wakeups: Wakeups = Wakeups.APART) -> PatchVerdict:
    """The verdict from /proc/interrupts alone, of a phase that is not void.

    A broadcast interrupts every other CPU once. So the figure is CAL - TLB over all CPUs, minus the background measured
    before, divided by the number of loops and of other CPUs. The bounds allow for a background that changes by half,
    and for counts that scatter by their square root (3 sigma). Counters that were not at rest at the end may rise to
    twice as much. Where remote wakeups are among these interrupts, a healthy kernel has one and more per loop and CPU
    (`detect.classes.wakeups_told_apart`), and they prove nothing.
    """
    calls = call_rise(phase.before, phase.after)
    if calls is None:
        return PatchVerdict(Patch.UNKNOWN, "this architecture counts no function call interrupts")
    expected = background_hz * phase.elapsed_s
    doubt = expected / 2 + NOISE_SIGMAS * sqrt(max(calls, 0) + 1)
    low = max(0.0, calls - expected - doubt) / loops / phase.other_cpus
    high = max(0.0, calls - expected + doubt) / loops / phase.other_cpus
    if wakeups is not Wakeups.APART:
        return PatchVerdict(Patch.UNKNOWN, _WAKEUPS)
    if high * (1 if phase.quiesced else 2) < UNPATCHED_FROM:
        return PatchVerdict(Patch.PATCHED, "from the counters", low, high)
    if low >= UNPATCHED_FROM:
        return PatchVerdict(Patch.UNPATCHED, "from the counters", low, high)
    if high < UNPATCHED_FROM:
        return PatchVerdict(Patch.UNKNOWN, "the counters were not at rest at the end: try fewer loops (-n)", low, high)
    return PatchVerdict(Patch.UNKNOWN, "too few loops: other interrupts on this node hide the result", low, high)
