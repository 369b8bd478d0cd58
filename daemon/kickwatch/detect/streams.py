"""From a trial to observations: what each stream hears, in which order, and under which allowance. Pure.

A container of a serial churn has a life of its own in the record, so *attributed* hears one observation per container:
the rise of the creation path over that life. What no single life holds is *burst*'s: all of it when several containers
live at once, and in a serial churn what landed after the last one had gone (slab caches of a memcg were made by a
kworker, seconds later, until 5.9). Burst hears one observation per trial, per container of it. Together they hear every
creation-path broadcast of a trial once, except those in the lives of containers that failed: a failed container does
not count, above or below the line.

Why the late ones are not added to the last container: clipped at 4 they would vanish there among the others' silence,
and the fault of 2017 would take 40 trials instead of 6. Why they are not dealt out evenly: equal shares of one burst
would be taken for as many broadcasts by as many containers, and alarms would be false.

All other streams hear one observation per trial or canary batch, since the record has their figures per window.
"""

from enum import StrEnum
from functools import lru_cache

import msgspec

from kickwatch.detect.classes import BpfCost, Broadcasts, bpf_cost, broadcasts_of, elsewhere_above_quiet
from kickwatch.detect.figures import batch_heard, churn_by_quiet, creation_broadcasts, waits_known
from kickwatch.detect.oneshot import Churned
from kickwatch.detect.rates import (
    BPF,
    CANARY,
    CONTENTION,
    CREATION_PATH,
    DESTROY,
    PERCPU_BALANCE,
    SIGNATURE,
    SWEEPS,
    Allowance,
)
from kickwatch.detect.verdict import (
    BROADCASTS_PER_MEMCG,
    LEAST_CPUS_TO_SWEEP,
    counted_broadcasts_per_memcg,
    single_request_sweeps,
)
from kickwatch.model import AlarmKind, IpiRung, MutexWait, Origin, Path, Trial

ELSEWHERE_MARGIN = 6.0  # broadcasts: one static key switched on and off
ELSEWHERE_PER_CONTAINER = 0.25


class Name(StrEnum):
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


CONDITION_OF = {
    Name.ATTRIBUTED: AlarmKind.BROADCASTING,
    Name.BURST: AlarmKind.BROADCASTING,
    Name.SIGNATURE: AlarmKind.BROADCASTING,
    Name.CANARY: AlarmKind.BROADCASTING,
    Name.CONTENTION: AlarmKind.CONTENDED,
    Name.CONTENTION_EXCESS: AlarmKind.CONTENDED,
    Name.DESTROY: AlarmKind.DESTROYING,
    Name.PERCPU_BALANCE: AlarmKind.EXCESSIVE,
    Name.BPF: AlarmKind.EXCESSIVE,
    Name.SWEEPS: AlarmKind.EXCESSIVE,
    Name.ELSEWHERE: AlarmKind.ELSEWHERE,
}
# Coins: which of the two windows has more. All other streams have an allowance.
SWAPPED = frozenset({Name.CONTENTION_EXCESS, Name.ELSEWHERE})
_ALLOWANCES = {
    Name.ATTRIBUTED: CREATION_PATH,
    Name.BURST: CREATION_PATH,
    Name.SIGNATURE: SIGNATURE,
    Name.CANARY: CANARY,
    Name.CONTENTION: CONTENTION,
    Name.DESTROY: DESTROY,
    Name.PERCPU_BALANCE: PERCPU_BALANCE,
    Name.BPF: BPF,
    Name.SWEEPS: SWEEPS,
}


class TrialObservations(msgspec.Struct, frozen=True):
    """What one trial tells. A stream that it tells nothing is missing from both dictionaries.

    `means` lacks the stream `bpf`: its allowance depends on what is known of the stratum (`bpf`: this trial's cost).
    """

    containers: int  # that count
    means: dict[Name, tuple[float, ...]]
    pairs: dict[Name, tuple[float, float]]  # of the swapped streams: churn and quiet window
    sweeps: dict[str, float]  # by cell: requests per container and other CPU, above the quiet window's
    longest_wait_ns: int = 0
    churned: Churned | None = None  # for the test of silence; None where no probe attributed
    bpf: BpfCost | None = None
    elsewhere: float = 0.0  # broadcasts elsewhere above the quiet window's

    @property
    def silence(self) -> tuple[tuple[Name, int], ...]:
        """How many zeros each stream heard, if none heard anything else and no windows differ; else empty."""
        if any(map(any, self.means.values())) or any(churn != quiet for churn, quiet in self.pairs.values()):
            return ()
        return tuple((name, len(heard)) for name, heard in self.means.items())


def allowance_of(name: Name) -> Allowance:
    """What a healthy kernel may do in a stream that is not swapped."""
    return _ALLOWANCES[name]


class Lives(msgspec.Struct, frozen=True):
    """The containers of a trial that count, and where their creation-path broadcasts lie."""

    count: int
    own: tuple[float, ...]  # of each that has a known life of its own, in order
    late: int  # in no container's life
    begun: int = 0  # containers that were created, whatever became of them
    in_failed: int = 0  # broadcasts in the lives of failed ones


def lives_of(trial: Trial, created: int) -> Lives:
    """Where the `created` broadcasts of the churn window lie; those in the lives of failed containers are left out."""
    counting = [life.creation_path_broadcasts for life in trial.containers if not life.failure]
    begun = sum([1 for life in trial.containers if not life.failure or life.create_ms > 0.0])
    if trial.concurrency != 1:
        return Lives(len(counting), (), created, begun)
    own = tuple([float(rise) for rise in counting if rise is not None and rise >= 0])
    held = sum([life.creation_path_broadcasts or 0 for life in trial.containers]) if created else 0
    failed = sum([life.creation_path_broadcasts or 0 for life in trial.containers if life.failure]) if created else 0
    return Lives(len(counting), own, max(0, created - max(0, held)), begun, failed)


def observe(trial: Trial) -> TrialObservations:
    """The observations of one trial, void or not: whether they may be used is the monitor's business."""
    churn = broadcasts_of(trial.churn.cells)
    lives = lives_of(trial, churn.created)
    probed = trial.observers.ipis is not IpiRung.COUNTERS and lives.count > 0
    means: dict[Name, tuple[float, ...]] = {}
    pairs: dict[Name, tuple[float, float]] = {}
    if canary := _canary(trial):
        means[Name.CANARY] = canary
    if probed:
        means |= _attributed(trial, lives, churn)
        quiet = broadcasts_of(trial.quiet.cells)
        pairs[Name.ELSEWHERE] = beyond_margin(float(churn.elsewhere), float(quiet.elsewhere), lives.begun)
    if lives.count and waits_known(trial):
        means[Name.CONTENTION] = (_waits(trial.churn.waits, create=True) / lives.count,)
        pairs[Name.CONTENTION_EXCESS] = (_waits(trial.churn.waits), _waits(trial.quiet.waits))
    return TrialObservations(
        containers=lives.count,
        means=means,
        pairs=pairs,
        sweeps=_sweeps(trial, lives.count) if probed else {},
        longest_wait_ns=max([wait.max_wait_ns for wait in trial.churn.waits], default=0),
        churned=churned_of(lives) if probed and not lives.in_failed else None,
        bpf=bpf_cost(trial.node, lives.count, churn) if probed and lives.count == len(trial.containers) else None,
        elsewhere=elsewhere_above_quiet(trial) if probed else 0.0,
    )


def beyond_margin(churn: float, quiet: float, containers: int) -> tuple[float, float]:
    """The windows' broadcasts elsewhere, or a tie where they differ by no more than healthy containers do.

    A container now and then makes the kernel purge mappings or flip a static key that nobody else holds: a toss that
    churn always wins. To leave out small differences, whichever window has more, leaves the coin as fair as it was.
    """
    margin = max(ELSEWHERE_MARGIN, ELSEWHERE_PER_CONTAINER * containers)
    return (churn, quiet) if abs(churn - quiet) > margin else (0.0, 0.0)


def churned_of(lives: Lives) -> Churned:
    """The containers as the tests of one run hear them."""
    return Churned(lives.own, float(lives.late), lives.count - len(lives.own))


def _attributed(trial: Trial, lives: Lives, churn: Broadcasts) -> dict[Name, tuple[float, ...]]:
    """What the stacks attribute, by container that was created: one that failed later may have cost as much."""
    count = max(lives.begun, lives.count)
    means: dict[Name, tuple[float, ...]] = {Name.ATTRIBUTED: lives.own} if lives.own else {}
    means[Name.BURST] = (lives.late / count,)
    means[Name.SIGNATURE] = (churn.kicks / count,)
    means[Name.DESTROY] = (churn.destroyed / count,)
    means[Name.PERCPU_BALANCE] = (churn.balanced / count,)
    if trial.node.cpus_online >= LEAST_CPUS_TO_SWEEP:
        means[Name.SWEEPS] = (single_request_sweeps(trial) / count,)
    return means


@lru_cache(maxsize=1024)
def cell_name(reason: str, origin: Origin, path: Path) -> str:
    """The identity of a cell across kernels, as a person reads it."""
    return f"{reason} {origin.value} {path.value}"


def _canary(trial: Trial) -> tuple[float, ...]:
    """One observation, or none: broadcasts of the batch, or where only counters are read CAL - TLB for each memcg.

    That by the other CPUs, so that one broadcast for each memory cgroup is 1.0 on any node. Below half of that it is 0:
    wakeups are call-function interrupts since "sched: Replace rq::wake_list" (5.8), up to 0.3 in a guest without fault.
    """
    batch = trial.canary
    if batch is None or not batch.memcgs:
        return ()
    if trial.observers.ipis is not IpiRung.COUNTERS:
        seen = creation_broadcasts(batch.cells)
        return (float(seen),) if seen or batch_heard(batch) else ()
    each = counted_broadcasts_per_memcg(batch, trial.node.cpus_online)
    if each is None:
        return ()
    return (each if each >= BROADCASTS_PER_MEMCG else 0.0,)


def _waits(waits: tuple[MutexWait, ...], *, create: bool = False) -> float:
    """Waits for slab_mutex: those on the create path, or all the others, whose cause the waiter does not tell."""
    return float(sum([wait.waits for wait in waits if (wait.path is Path.CREATE) is create])) if waits else 0.0


def _sweeps(trial: Trial, containers: int) -> dict[str, float]:
    """What the containers cost, by cell. Wakeups and interrupts follow the node's other load, not its kernel."""
    each = containers * max(1, trial.node.cpus_online - 1)
    longer = churn_by_quiet(trial)
    above: dict[str, float] = {}
    for cell in trial.churn.cells:
        if cell.origin is not Origin.SCHED and cell.origin is not Origin.IRQ:
            name = cell_name(cell.reason, cell.origin, cell.path)
            above[name] = above.get(name, 0.0) + cell.requests
    for cell in trial.quiet.cells:
        name = cell_name(cell.reason, cell.origin, cell.path)
        if name in above:
            above[name] -= cell.requests * longer
    return {name: rise / each for name, rise in above.items() if rise > 0.0}
