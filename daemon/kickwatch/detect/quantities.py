"""What each stream observes in a trial: one function for each, from the trial's figures to its observations. Pure.

A stream that compares whole windows observes two figures, that of the churn window and that of the quiet window. A
stream of pairs observes a difference for each pair of halves. A trial has either, never both. A function returns an
empty tuple where the trial gives its stream no observation.
"""

import msgspec

from kickwatch.detect.classes import BpfCost, Broadcasts
from kickwatch.detect.figures import creation_broadcasts, zero_is_certain
from kickwatch.detect.lives import Lives
from kickwatch.detect.pairs import differences
from kickwatch.detect.verdict import (
    BROADCASTS_PER_MEMCG,
    LEAST_CPUS_TO_SWEEP,
    contention_known,
    counted_broadcasts_per_memcg,
    single_request_sweeps,
)
from kickwatch.model import IpiRung, MutexWait, Path, Trial

ELSEWHERE_MARGIN = 6.0  # broadcasts: one static key switched on and off
ELSEWHERE_PER_CONTAINER = 0.25

Observations = tuple[float, ...]


class TrialFigures(msgspec.Struct, frozen=True):
    """A trial with its broadcasts by class. `probed`: a probe attributed them, and containers lived."""

    trial: Trial
    lives: Lives
    churn: Broadcasts
    quiet: Broadcasts
    probed: bool
    bpf: BpfCost | None = None  # None where containers failed: their cost is not known

    def per_created(self, amount: float) -> Observations:
        """A figure of the whole window, divided by the containers that were created.

        A container that failed after its creation may have cost as much as another.
        """
        return (amount / max(self.lives.created, self.lives.count),) if self.probed else ()


def in_own_lives(seen: TrialFigures) -> Observations:
    """Creation-path broadcasts of each container whose life is known."""
    return seen.lives.own if seen.probed else ()


def in_no_life(seen: TrialFigures) -> Observations:
    """Creation-path broadcasts that lie in no single container's life."""
    return seen.per_created(seen.lives.late)


def kicks(seen: TrialFigures) -> Observations:
    """Slab creation that kicks all CPUs: a part of the creation path's broadcasts."""
    return seen.per_created(seen.churn.kicks)


def while_destroying(seen: TrialFigures) -> Observations:
    """Broadcasts made while containers were removed."""
    return seen.per_created(seen.churn.destroyed)


def while_balancing(seen: TrialFigures) -> Observations:
    """Broadcasts of pcpu_balance_workfn."""
    return seen.per_created(seen.churn.balanced)


def for_bpf_programs(seen: TrialFigures) -> Observations:
    """Broadcasts for BPF programs, per container. The monitor divides them by what is allowed under the stratum."""
    return (seen.bpf.broadcasts / seen.bpf.containers,) if seen.bpf is not None else ()


def sweeps(seen: TrialFigures) -> Observations:
    """Single requests of the creation path, in sweeps of all other CPUs."""
    if seen.trial.node.cpus_online < LEAST_CPUS_TO_SWEEP:
        return ()
    return seen.per_created(single_request_sweeps(seen.trial))


def elsewhere(seen: TrialFigures) -> Observations:
    """Broadcasts from outside the creation path in both windows."""
    if not seen.probed or seen.trial.pairs:
        return ()
    return beyond_margin(float(seen.churn.elsewhere), float(seen.quiet.elsewhere), seen.lives.created)


def beyond_margin(churn: float, quiet: float, containers: int) -> tuple[float, float]:
    """Both windows' broadcasts elsewhere, or a tie where they differ by no more than healthy containers do.

    Now and then a container makes the kernel purge mappings or switch a static key that nobody else holds, and churn
    would win each of these tosses. Leaving out small differences, whichever window has more, keeps the coin fair.
    """
    margin = max(ELSEWHERE_MARGIN, ELSEWHERE_PER_CONTAINER * containers)
    return (churn, quiet) if abs(churn - quiet) > margin else (0.0, 0.0)


def waits_on_creation_path(seen: TrialFigures) -> Observations:
    """Waits for slab_mutex on the creation path, per container."""
    if not seen.lives.count or not contention_known([seen.trial]):
        return ()
    return (_waits(seen.trial.churn.waits, create=True) / seen.lives.count,)


def other_waits(seen: TrialFigures) -> Observations:
    """Waits for slab_mutex on all other paths, whose cause the waiter does not show, in both windows."""
    if not seen.lives.count or not contention_known([seen.trial]) or seen.trial.pairs:
        return ()
    return (_waits(seen.trial.churn.waits, create=False), _waits(seen.trial.quiet.waits, create=False))


def elsewhere_by_pairs(seen: TrialFigures) -> Observations:
    """Broadcasts from outside the creation path, by pairs of halves."""
    return differences(seen.trial.pairs, lambda half: half.elsewhere) if seen.probed else ()


def other_waits_by_pairs(seen: TrialFigures) -> Observations:
    """Waits for slab_mutex on all other paths, by pairs of halves."""
    if not seen.lives.count or not contention_known([seen.trial]):
        return ()
    return differences(seen.trial.pairs, lambda half: half.other_waits)


def isolated_by_pairs(seen: TrialFigures) -> Observations:
    """Requests to isolated CPUs, by pairs of halves; none where no CPU is isolated."""
    if not seen.probed or not seen.trial.isolated_cpus:
        return ()
    return differences(seen.trial.pairs, lambda half: half.isolated)


def in_canary_batch(seen: TrialFigures) -> Observations:
    """Creation-path broadcasts of the batch, or where only counters are read CAL - TLB for each memcg and other CPU.

    Counted by the other CPUs, one broadcast for each memory cgroup is 1.0 on any node. Less than half of that counts as
    0: since "sched: Replace rq::wake_list" (5.8) wakeups are call-function interrupts, up to 0.3 in a healthy guest.
    Where they cannot be told apart (`wakeups_told_apart`), the counters are no observation.
    """
    batch = seen.trial.canary
    if batch is None or not batch.memcgs:
        return ()
    if seen.trial.observers.ipis is not IpiRung.COUNTERS:
        broadcasts = creation_broadcasts(batch.cells)
        return (float(broadcasts),) if broadcasts or zero_is_certain(batch) else ()
    each = counted_broadcasts_per_memcg(batch, seen.trial.node)
    if each is None:
        return ()
    return (each if each >= BROADCASTS_PER_MEMCG else 0.0,)


def _waits(waits: tuple[MutexWait, ...], *, create: bool) -> float:
    return float(sum([wait.waits for wait in waits if (wait.path is Path.CREATE) is create])) if waits else 0.0
