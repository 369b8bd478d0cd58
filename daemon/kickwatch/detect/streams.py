"""The streams: one row for each, with everything that is known of it. All else derives from these rows. Pure.

Every broadcast is observed by exactly one stream (`classes`), except that *signature* observes a part of what
*attributed* and *burst* do. docs/detection.md has the same table for people.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from kickwatch.detect import quantities
from kickwatch.detect.quantities import Observations, TrialFigures
from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import AlarmKind


class StreamName(StrEnum):
    """The streams, in the order in which they are judged."""

    ATTRIBUTED = "attributed"
    BURST = "burst"
    SIGNATURE = "signature"
    CANARY = "canary"
    CONTENTION = "contention"
    CONTENTION_EXCESS = "contention_excess"
    DESTROY = "destroy"
    PERCPU_BALANCE = "percpu_balance"
    BPF = "bpf"
    SWEEPS = "sweeps"
    ELSEWHERE = "elsewhere"
    ELSEWHERE_PAIRS = "elsewhere_pairs"
    CONTENTION_PAIRS = "contention_pairs"
    ISOLATION = "isolation"


class Allowance(msgspec.Struct, frozen=True):
    """What a healthy kernel may do: a mean per observation, and the bound at which an observation is clipped."""

    mean: float
    clip: float


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    `sentence` continues "7 of the last 9 trials ..." in an alarm; {each} is the mean since the first hit, and {mostly}
    names the function with the largest excess.
    """

    name: StreamName
    alarm: AlarmKind  # what its alarm says of the node
    observes: Callable[[TrialFigures], Observations]
    allowance: Allowance | None  # None for a coin: which of the two windows, or of two halves, has more
    paired: bool = False  # a coin for each pair of halves, not one for each trial with two whole windows
    hit_above: float = 0.0  # an observation above it is a hit: it counts towards an alarm
    per_container: bool = False  # one observation per container of a trial, not one per trial
    unit: str = "trials"  # what the observations are of
    sentence: str
    sentence_by_counters: str = ""  # where no probe attributes, if it differs
    reason: VerdictReason | None = None  # of the verdict while the alarm holds; None: it is a finding beside it
    reason_by_counters: VerdictReason | None = None

    @property
    def coin(self) -> bool:
        """True for a stream that compares time with containers and time without."""
        return self.allowance is None


CREATION_PATH = Allowance(0.05, 4.0)
TIE = 0.5  # as an observation of a coin of whole windows: churn has more is 1, quiet has more is 0

_ROWS = (
    Stream(
        name=StreamName.CANARY,
        alarm=AlarmKind.BROADCASTING,
        observes=quantities.in_canary_batch,
        allowance=Allowance(0.05, 4.0),  # broadcasts per batch; by counters, per memory cgroup
        unit="canary batches",
        sentence="made the creation path broadcast (allowed: {allowed})",
        sentence_by_counters="raised CAL - TLB, by {each} per memory cgroup and other CPU (allowed: {allowed})",
        reason=VerdictReason.CANARY,
        reason_by_counters=VerdictReason.CANARY_INTERRUPTS,
    ),
    Stream(
        name=StreamName.ATTRIBUTED,
        alarm=AlarmKind.BROADCASTING,
        observes=quantities.in_own_lives,
        allowance=CREATION_PATH,
        per_container=True,
        unit="containers",
        sentence="made the creation path broadcast (allowed: {allowed})",
        reason=VerdictReason.CREATION_PATH,
    ),
    Stream(
        name=StreamName.BURST,
        alarm=AlarmKind.BROADCASTING,
        observes=quantities.in_no_life,
        allowance=CREATION_PATH,
        sentence=(
            "had creation-path broadcasts that belong to no single container, {each} per container (allowed: {allowed})"
        ),
        reason=VerdictReason.CREATION_PATH,
    ),
    Stream(
        name=StreamName.SIGNATURE,
        alarm=AlarmKind.BROADCASTING,
        observes=quantities.kicks,
        allowance=Allowance(0.001, 64.0),  # clipped high, yet one observation alone never alarms
        sentence="kicked all CPUs to create slab caches, {each} times per container (allowed: {allowed})",
        reason=VerdictReason.CREATION_PATH,
    ),
    Stream(
        name=StreamName.DESTROY,
        alarm=AlarmKind.DESTROYING,
        observes=quantities.while_destroying,
        allowance=Allowance(0.5, 4.0),  # ordinary on old kernels, none on new ones
        sentence="broadcast while containers were removed, {each} per container (allowed: {allowed})",
    ),
    Stream(
        name=StreamName.PERCPU_BALANCE,
        alarm=AlarmKind.EXCESSIVE,
        observes=quantities.while_balancing,
        allowance=Allowance(0.5, 4.0),  # measured: 2820 flushes while 10000 memcgs were removed, so 0.28 each
        sentence="had broadcasts of pcpu_balance_workfn, {each} per container (allowed: {allowed})",
    ),
    Stream(
        name=StreamName.SWEEPS,
        alarm=AlarmKind.EXCESSIVE,
        observes=quantities.sweeps,
        allowance=Allowance(0.25, 4.0),
        sentence=(
            "had single requests from the creation path, {each} sweeps of all CPUs per container (allowed: {allowed})"
        ),
    ),
    Stream(
        name=StreamName.CONTENTION,
        alarm=AlarmKind.CONTENDED,
        observes=quantities.waits_on_creation_path,
        allowance=Allowance(0.05, 4.0),
        sentence=(
            "made tasks wait for slab_mutex on the creation path, {each} waits per container (allowed: {allowed}),"
            " the longest {longest_ms}"
        ),
    ),
    Stream(
        name=StreamName.BPF,
        alarm=AlarmKind.EXCESSIVE,
        observes=quantities.for_bpf_programs,
        allowance=Allowance(1.0, 8.0),  # in units of what is allowed here (`classes.bpf_allowance`)
        hit_above=1.0,  # most trials have some; what is allowed is no beginning of a fault
        sentence="had broadcasts for BPF programs, {each} times the allowance here",
    ),
    Stream(
        name=StreamName.CONTENTION_EXCESS,
        alarm=AlarmKind.CONTENDED,
        observes=quantities.other_waits,
        allowance=None,
        hit_above=TIE,
        sentence=(
            "had more waits for slab_mutex with containers than without (by chance: half of them), the longest"
            " {longest_ms}"
        ),
    ),
    Stream(
        name=StreamName.ELSEWHERE,
        alarm=AlarmKind.ELSEWHERE,
        observes=quantities.elsewhere,
        allowance=None,
        hit_above=TIE,
        sentence=(
            "had more broadcasts from outside the creation path with containers than without (by chance: half of them)"
        ),
    ),
    Stream(
        name=StreamName.ELSEWHERE_PAIRS,
        alarm=AlarmKind.ELSEWHERE,
        observes=quantities.elsewhere_by_pairs,
        allowance=None,
        paired=True,
        unit="containers",
        sentence=(
            "came with more broadcasts from outside the creation path{mostly} than as much time without a container"
            " (by chance: half of them at most)"
        ),
    ),
    Stream(
        name=StreamName.CONTENTION_PAIRS,
        alarm=AlarmKind.CONTENDED,
        observes=quantities.other_waits_by_pairs,
        allowance=None,
        paired=True,
        unit="containers",
        sentence=(
            "came with more waits for slab_mutex off the creation path than as much time without a container (by"
            " chance: half of them at most), the longest {longest_ms}"
        ),
    ),
    Stream(
        name=StreamName.ISOLATION,
        alarm=AlarmKind.ISOLATION,
        observes=quantities.isolated_by_pairs,
        allowance=None,
        paired=True,
        unit="containers",
        sentence=(
            "came with more requests to isolated CPUs{mostly} than as much time without a container (by chance: half of"
            " them at most)"
        ),
    ),
)
# In the order in which a trial is observed. It shows in records: reasons and streams of an alarm come in the order in
# which the streams first observed something.
STREAMS = {row.name: row for row in _ROWS}


def allowance_of(name: StreamName) -> Allowance:
    """What a healthy kernel may do in a stream that is no coin. Raises ValueError for a coin."""
    allowance = STREAMS[name].allowance
    if allowance is None:
        raise ValueError(f"the stream {name.value} is a coin")
    return allowance
