"""The verdict over trial records, by a fixed rule: a healthy kernel never broadcasts to create a container. Pure.

The rule for `broadcasting`: over at least 10 counted containers the creation path makes at least 0.5 broadcasts per
container, or a canary batch makes at least 0.5 per memory cgroup. No verdict is `quiet` while the containers come with
at least 0.5 broadcasts each from elsewhere. Contention is a finding beside the verdict, not a part of it.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from kickwatch.detect.classes import unallowed_above_quiet, wakeups_told_apart
from kickwatch.detect.figures import (
    broadcasts_may_be_lost,
    counted,
    creation_broadcasts,
    lived,
    total_waits,
    waits_known,
    zero_is_certain,
)
from kickwatch.model import CanaryBatch, IpiRung, KmemAccounting, Node, Trial, Verdict

MIN_CONTAINERS = 10
BROADCASTS_PER_CONTAINER = 0.5
BROADCASTS_PER_MEMCG = 0.5
WAITS_PER_CONTAINER = 0.5
SWEEPS_PER_CONTAINER = 1.0
LEAST_CPUS_TO_SWEEP = 4  # with fewer, a request to one CPU looks much like a sweep
FAILED_SHARE = 0.9  # of a trial's containers: such a trial establishes nothing


class VerdictReason(StrEnum):
    """Why a verdict was given."""

    CREATION_PATH = "creation_path_broadcasts"
    CANARY = "canary_broadcasts"
    CANARY_INTERRUPTS = "canary_interrupts"
    BROADCASTS_ELSEWHERE = "broadcasts_elsewhere"
    TOO_FEW_CONTAINERS = "too_few_containers"
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"
    CONTAINERS_FAILED = "containers_failed"
    STALE = "stale"
    KMEM_ACCOUNTING_OFF = "kmem_accounting_off"
    KMEM_ACCOUNTING_UNKNOWN = "kmem_accounting_unknown"
    BLIND = "blind"
    WAKEUPS_COUNTED = "counters_include_wakeups"
    EVENTS_LOST = "events_lost"
    ONE_CPU = "one_cpu"
    DISTURBED = "disturbed"


class Finding(StrEnum):
    """An observation that is reported beside the verdict."""

    SLAB_MUTEX_CONTENTION = "slab_mutex_contention"
    BROADCASTS_ELSEWHERE = "broadcasts_elsewhere"
    SINGLE_REQUEST_SWEEPS = "single_request_sweeps"
    UNSETTLED = "unsettled"
    FAILED_CONTAINERS = "failed_containers"


class ReasonedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict with its reasons and findings."""

    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[str, ...]


def judge(trials: Sequence[Trial]) -> ReasonedVerdict:
    """The verdict over consecutive trials of one node; the figures are pooled.

    A void experiment (no kernel memory was charged, the machine changed during it) outranks the broadcasts seen in it.
    Broadcasts that were seen outrank a lack of figures.
    """
    void, broadcasting, doubts = void_reasons(trials), _broadcasting_reasons(trials), doubts_of(trials)
    if void:
        verdict, reasons = Verdict.UNKNOWN, [*void, *doubts]
    elif broadcasting:
        verdict, reasons = Verdict.BROADCASTING, broadcasting
    elif doubts:
        verdict, reasons = Verdict.UNKNOWN, doubts
    elif broadcasts_elsewhere(trials):
        verdict, reasons = Verdict.UNKNOWN, [VerdictReason.BROADCASTS_ELSEWHERE.value]
    else:
        verdict, reasons = Verdict.QUIET, []
    return ReasonedVerdict(verdict=verdict, reasons=tuple(reasons), findings=tuple(_findings(trials)))


def void_reasons(trials: Sequence[Trial]) -> list[str]:
    """Why the trials prove nothing, whatever was seen in them."""
    off = any(trial.kmem_accounting is KmemAccounting.OFF and counted(trial) for trial in trials)
    reasons = [VerdictReason.KMEM_ACCOUNTING_OFF.value] if off else []
    if any(trial.void for trial in trials):
        reasons.append(VerdictReason.DISTURBED.value)
    return reasons


def _broadcasting_reasons(trials: Sequence[Trial]) -> list[str]:
    containers = sum(len(counted(trial)) for trial in trials)
    broadcasts = sum(creation_broadcasts(trial.churn.cells) for trial in trials)
    reasons = []
    if containers >= MIN_CONTAINERS and broadcasts / containers >= BROADCASTS_PER_CONTAINER:
        reasons.append(VerdictReason.CREATION_PATH.value)
    canaries = [trial.canary for trial in trials if trial.canary is not None and trial.canary.memcgs]
    memcgs = sum(canary.memcgs for canary in canaries)
    if memcgs and sum(creation_broadcasts(canary.cells) for canary in canaries) / memcgs >= BROADCASTS_PER_MEMCG:
        reasons.append(VerdictReason.CANARY.value)
    reasons += _reasons_by_counters(trials)
    return reasons


def _reasons_by_counters(trials: Sequence[Trial]) -> list[str]:
    """Without a probe the canary's CAL - TLB decides: it is nearly free of noise (measured: 0.017 per batch of 100)."""
    blind = [trial for trial in trials if trial.observers.ipis is IpiRung.COUNTERS and trial.canary is not None]
    rises = [counted_broadcasts_per_memcg(trial.canary, trial.node) for trial in blind if trial.canary]
    per_cpu = [each for each in rises if each is not None]
    if per_cpu and sum(per_cpu) / len(per_cpu) >= BROADCASTS_PER_MEMCG:
        return [VerdictReason.CANARY_INTERRUPTS.value]
    return []


def cal_minus_tlb_per_memcg(canary: CanaryBatch) -> float | None:
    """Call-function interrupts without TLB shootdowns, of all CPUs, per memcg; None where the row is missing."""
    if canary.interrupts.cal is None or not canary.memcgs:
        return None
    return (canary.interrupts.cal - (canary.interrupts.tlb or 0)) / canary.memcgs


def counted_broadcasts_per_memcg(canary: CanaryBatch, node: Node) -> float | None:
    """The same per other CPU: one broadcast for each memcg is 1.0 on any node. None where it cannot be known."""
    rise = cal_minus_tlb_per_memcg(canary)
    if rise is None or node.cpus_online < 2 or not _wakeups_apart(node):
        return None
    return rise / (node.cpus_online - 1)


def _wakeups_apart(node: Node) -> bool:
    return wakeups_told_apart(node.arch, node.kernel, idle_cpus_halt=node.idle_cpus_halt)


def doubts_of(trials: Sequence[Trial]) -> list[str]:
    """Why the absence of broadcasts proves nothing. Broadcasts that were seen count all the same."""
    doubts = []
    if any(_blind(trial) for trial in trials):
        doubts.append(VerdictReason.BLIND.value)
    if any(_by_counters(trial) and not _wakeups_apart(trial.node) for trial in trials):
        doubts.append(VerdictReason.WAKEUPS_COUNTED.value)
    if any(trial.node.cpus_online < 2 for trial in trials):
        doubts.append(VerdictReason.ONE_CPU.value)
    if sum(len(counted(trial)) for trial in trials) < MIN_CONTAINERS:
        doubts.append(VerdictReason.TOO_FEW_CONTAINERS.value)
    if trials and all(map(nearly_all_failed, trials)):
        doubts.append(VerdictReason.CONTAINERS_FAILED.value)
    if any(trial.kmem_accounting is KmemAccounting.UNKNOWN and counted(trial) for trial in trials):
        doubts.append(VerdictReason.KMEM_ACCOUNTING_UNKNOWN.value)
    probed = (trial for trial in trials if trial.observers.ipis is not IpiRung.COUNTERS)
    batches = (
        trial.canary for trial in trials if trial.observers.ipis is not IpiRung.COUNTERS and trial.canary is not None
    )
    lost = any(map(broadcasts_may_be_lost, probed))
    unnoted = any(look.lost for trial in trials for look in trial.looks)
    if lost or unnoted or not all(map(zero_is_certain, batches)):
        doubts.append(VerdictReason.EVENTS_LOST.value)
    return doubts


def _by_counters(trial: Trial) -> bool:
    return trial.observers.ipis is IpiRung.COUNTERS


def _blind(trial: Trial) -> bool:
    """No probe, one that failed its positive control, or one that saw containers start without a single request."""
    if trial.control is not None and not trial.control.passed:
        return True
    return _by_counters(trial) or (not trial.churn.cells and bool(lived(trial)))


def _findings(trials: Sequence[Trial]) -> list[str]:
    findings = []
    if contended(trials):
        findings.append(Finding.SLAB_MUTEX_CONTENTION.value)
    if broadcasts_elsewhere(trials):
        findings.append(Finding.BROADCASTS_ELSEWHERE.value)
    if swept(trials):
        findings.append(Finding.SINGLE_REQUEST_SWEEPS.value)
    if any(trial.unsettled for trial in trials):
        findings.append(Finding.UNSETTLED.value)
    if any(container.failure for trial in trials for container in trial.containers):
        findings.append(Finding.FAILED_CONTAINERS.value)
    return findings


def broadcasts_elsewhere(trials: Sequence[Trial]) -> bool:
    """Do broadcasts from outside the creation path, such as a worker's, come with containers?

    Yes if churn has at least 0.5 per container more than quiet: by the pairs of halves, in which one container counts
    for at most 3, or where a trial has none, by the windows. That is no proof, since other activity on the node can do
    as much. The evidence of the pairs proves it (`oneshot`), or that of the daemon's streams.
    """
    containers = sum(len(counted(trial)) for trial in trials)
    above = sum(map(unallowed_above_quiet, trials))
    return above > 0.0 and above >= BROADCASTS_PER_CONTAINER * containers


def swept(trials: Sequence[Trial]) -> bool:
    """Does the creation path send single requests to all CPUs in turn, once for each container?"""
    wide = [trial for trial in trials if trial.node.cpus_online >= LEAST_CPUS_TO_SWEEP]
    containers = sum(len(counted(trial)) for trial in wide)
    return containers > 0 and sum(map(single_request_sweeps, wide)) >= SWEEPS_PER_CONTAINER * containers


def single_request_sweeps(trial: Trial) -> float:
    """Single requests of the creation path, in sweeps: how many times they are enough to reach all other CPUs."""
    singles = sum([cell.single_requests for cell in trial.churn.cells if cell.on_creation_path])
    return singles / max(1, trial.node.cpus_online - 1)


def nearly_all_failed(trial: Trial) -> bool:
    """True if at least nine of ten containers failed: such a trial establishes nothing."""
    failed = len(trial.containers) - len(counted(trial))
    return failed > 0 and failed >= FAILED_SHARE * len(trial.containers)


def contention_known(trials: Sequence[Trial]) -> bool:
    """Whether waits were observed, and those that the probe lost would not make `contended` what is not."""
    lost = sum(trial.churn.lost_waits or 0 for trial in trials)
    known = all(map(waits_known, trials))
    return known and (not lost or contended(trials) is contended(trials, lost=lost))


def contended(trials: Sequence[Trial], *, lost: int = 0) -> bool:
    """Do containers make tasks wait for slab_mutex? `lost`: waits on the create path beside those that were counted.

    Yes if there are 0.5 waits per container on the create path. Also yes if the churn windows have that many waits in
    all beyond those of the quiet windows, and at least twice as many as the quiet windows: other users of the mutex,
    such as readers of slabinfo, wait in both.
    """
    containers = sum(len(counted(trial)) for trial in trials)
    if not containers:
        return False
    churn, _ = total_waits(wait for trial in trials for wait in trial.churn.waits)
    quiet, _ = total_waits(wait for trial in trials for wait in trial.quiet.waits)
    created, _ = total_waits(wait for trial in trials for wait in trial.churn.waits if wait.path == "create")
    created, churn, needed = created + lost, churn + lost, WAITS_PER_CONTAINER * containers
    return created >= needed or (churn - quiet >= needed and churn >= 2 * quiet)
