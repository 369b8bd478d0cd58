"""The verdict over records: reasons for broadcasting, reasons for unknown, and findings."""

import pytest
from msgspec.structs import replace

from builders import TLB, containers, kick, trial, wait, window
from kickwatch.detect.verdict import doubts_of, judge
from kickwatch.model import (
    CanaryBatch,
    Cell,
    ContentionRung,
    Interrupts,
    IpiRung,
    KmemAccounting,
    Look,
    Observers,
    Origin,
    Path,
    Trial,
    Verdict,
)


def test_a_healthy_trial_is_quiet() -> None:
    judgement = judge([trial()])
    assert judgement.verdict is Verdict.QUIET
    assert judgement.reasons == ()
    assert judgement.findings == ()


@pytest.mark.parametrize(("broadcasts", "verdict"), [(11, Verdict.QUIET), (12, Verdict.BROADCASTING)])
def test_half_a_broadcast_per_container_is_the_limit(broadcasts: int, verdict: Verdict) -> None:
    assert judge([trial(kick(broadcasts), count=23)]).verdict is verdict


def test_the_same_cell_on_the_destroy_path_is_no_fault() -> None:
    assert judge([trial(replace(kick(500), path=Path.DESTROY))]).verdict is Verdict.QUIET


def test_too_few_containers_are_unknown_whatever_they_show() -> None:
    judgement = judge([trial(kick(27), count=9)])
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.reasons == ("too_few_containers",)


def test_trials_are_pooled() -> None:
    assert judge([trial(kick(15), count=5), trial(kick(15), count=5)]).verdict is Verdict.BROADCASTING


def test_failed_containers_do_not_count() -> None:
    judgement = judge([trial(containers=containers(9, failed=14))])
    assert judgement.verdict is Verdict.UNKNOWN
    assert "failed_containers" in judgement.findings


def test_the_canary_alone_is_enough_for_broadcasting() -> None:
    canary = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(kick(500),))
    judgement = judge([trial(canary=canary, count=3)])
    assert judgement.verdict is Verdict.BROADCASTING
    assert judgement.reasons == ("canary_broadcasts",)


def test_without_probes_a_quiet_node_is_unknown_and_the_canary_still_convicts() -> None:
    blind = trial(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    assert judge([blind]).reasons == ("blind",)
    faulty = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=1440, tlb=9))
    assert judge([replace(blind, canary=faulty)]).verdict is Verdict.BROADCASTING


@pytest.mark.parametrize("state", [KmemAccounting.OFF, KmemAccounting.UNKNOWN])
def test_without_kmem_accounting_nothing_is_proved(state: KmemAccounting) -> None:
    judgement = judge([trial(kmem_accounting=state)])
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.reasons == (f"kmem_accounting_{state}",)


def test_accounting_off_outranks_broadcasts_that_were_seen() -> None:
    assert judge([trial(kick(100), kmem_accounting=KmemAccounting.OFF)]).verdict is Verdict.UNKNOWN


def test_a_probe_that_sees_nothing_at_all_is_blind() -> None:
    assert judge([trial(churn=window("churn"))]).reasons == ("blind",)


def test_one_cpu_cannot_be_interrupted_by_another() -> None:
    one = trial()
    assert judge([replace(one, node=replace(one.node, cpus_online=1))]).reasons == ("one_cpu",)


def test_a_machine_that_changed_during_the_trial_proves_nothing() -> None:
    assert judge([trial(kick(100), void="cpus_changed")]).reasons == ("disturbed",)


def test_a_canary_whose_probe_lost_a_request_has_no_certain_zero() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), lost_events=1)
    assert (judge([trial(canary=batch)]).verdict, judge([trial(canary=batch)]).reasons) == ("unknown", ("events_lost",))
    with_broadcasts = replace(batch, cells=(kick(100),))
    assert judge([trial(canary=with_broadcasts)]).reasons == ("canary_broadcasts",)
    counters = trial(canary=batch, observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    assert judge([counters]).reasons == ("blind",)


def test_a_canary_counted_together_with_remote_wakeups_proves_nothing() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=300, tlb=None, res=0))
    counted = trial(canary=batch, observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE))
    arm64 = replace(counted, node=replace(counted.node, arch="aarch64"))
    assert judge([counted]).reasons == ("canary_interrupts",)
    assert (judge([arm64]).verdict, judge([arm64]).reasons) == ("unknown", ("blind", "counters_include_wakeups"))
    halting = replace(counted, node=replace(counted.node, idle_cpus_halt=True))
    assert (judge([halting]).verdict, judge([halting]).reasons) == ("unknown", ("blind", "counters_include_wakeups"))
    polling = replace(counted, node=replace(counted.node, idle_cpus_halt=False))
    assert judge([polling]).reasons == ("canary_interrupts",)
    for included in (arm64, halting):
        probed = replace(included, observers=trial().observers)
        assert "counters_include_wakeups" not in judge([probed]).reasons


def test_many_lost_events_are_blindness() -> None:
    sick = trial()
    assert judge([replace(sick, churn=replace(sick.churn, lost_events=100))]).reasons == ("events_lost",)


@pytest.mark.parametrize(("lost", "doubts"), [(7, ()), (8, ("events_lost",))])
def test_lost_requests_are_held_against_the_containers_and_not_against_all_requests(
    lost: int, doubts: tuple[str, ...]
) -> None:
    """A map that is full loses what is new, as a fault is; requests that need no room in it may be many."""
    wakeups = replace(TLB, reason="sched_ttwu_pending", func="sched_ttwu_pending", origin=Origin.SCHED, requests=80_000)
    one = trial(wakeups, count=23)
    assert judge([replace(one, churn=replace(one.churn, lost_events=lost, lost_requests=lost))]).reasons == doubts
    in_interrupts = replace(one, churn=replace(one.churn, lost_events=lost, lost_requests=0))
    assert judge([in_interrupts]).verdict is Verdict.QUIET


@pytest.mark.parametrize(("lost", "doubts"), [(0, ()), (7, ()), (8, ("events_lost",))])
def test_a_broadcast_in_exactly_every_third_container_may_be_what_was_lost(lost: int, doubts: tuple[str, ...]) -> None:
    one = trial(count=24)
    assert judge([replace(one, churn=replace(one.churn, lost_events=lost, lost_requests=lost))]).reasons == doubts


@pytest.mark.parametrize(
    ("seen", "lost", "hidden"),
    [(7, 0, False), (3, 4, False), (3, 5, True), (8, 3, False), (8, 4, True), (11, 0, False), (12, 1, False)],
)
def test_what_was_lost_counts_together_with_what_was_seen(seen: int, lost: int, hidden: bool) -> None:
    """Of 24 containers a verdict excludes 8 broadcasts, and 12 convict. Only a loss that tips it is a doubt."""
    one = trial(count=24)
    churn = replace(one.churn, cells=(*one.churn.cells, kick(seen)), lost_events=lost, lost_requests=lost)
    assert doubts_of([replace(one, churn=churn)]) == (["events_lost"] if hidden else [])


def test_broadcasts_that_a_look_of_passive_mode_does_not_count_hide_no_loss() -> None:
    """A healthy container patches kernel text; that is in the window, and no fault together with one lost request."""
    patches = replace(kick(16), func="do_sync_core", reason="do_sync_core")
    look = Look(containers=24, cgroups=240)
    one = trial(churn=window("passive", TLB, patches, lost_events=5, lost_requests=5), looks=(look,))
    one = replace(one, containers=(), quiet=window("quiet"))
    assert "events_lost" not in doubts_of([one])
    assert "events_lost" in doubts_of([replace(one, churn=replace(one.churn, lost_requests=8))])


def _with_waits(churn: int, quiet: int, path: Path = Path.OTHER) -> Trial:
    return trial(
        churn=window("churn", TLB, waits=(wait(churn, path=path),)), quiet=window("quiet", waits=(wait(quiet),))
    )


@pytest.mark.parametrize(
    ("case", "contended"),
    [
        (_with_waits(12, 0), True),
        (_with_waits(11, 0), False),
        (_with_waits(5000, 4000), False),  # readers of slabinfo wait in both windows
        (_with_waits(12, 4000, Path.CREATE), True),
    ],
)
def test_contention_is_a_finding_beside_the_verdict(case: Trial, contended: bool) -> None:
    judgement = judge([case])
    assert judgement.verdict is Verdict.QUIET
    assert ("slab_mutex_contention" in judgement.findings) is contended


def by_a_worker(broadcasts: int) -> Cell:
    """A worker's broadcast for a container, a moment later: no stack explains it."""
    return replace(kick(broadcasts), origin=Origin.UNKNOWN, path=Path.OTHER)


@pytest.mark.parametrize(
    ("churn", "quiet", "found"),
    [(12, 0, True), (11, 0, False), (23, 11, True), (23, 12, False), (45, 23, True), (5, 40, False)],
)
def test_a_run_is_not_quiet_where_broadcasts_from_elsewhere_come_with_containers(
    churn: int, quiet: int, found: bool
) -> None:
    case = trial(by_a_worker(churn), quiet=window("quiet", by_a_worker(quiet)))
    judgement = judge([case])
    assert judgement.verdict is (Verdict.UNKNOWN if found else Verdict.QUIET)
    assert judgement.reasons == (("broadcasts_elsewhere",) if found else ())
    assert ("broadcasts_elsewhere" in judgement.findings) is found


def test_windows_of_different_lengths_are_compared_by_their_rates() -> None:
    case = trial(by_a_worker(23), quiet=window("quiet", by_a_worker(10), duration_ns=5_000_000_000))
    assert judge([case]).verdict is Verdict.QUIET


@pytest.mark.parametrize(("requests", "cpus", "found"), [(69, 4, True), (68, 4, False), (690, 3, False)])
def test_single_requests_to_each_cpu_in_turn_are_a_finding(requests: int, cpus: int, found: bool) -> None:
    asked = replace(kick(0), origin=Origin.CGROUP, reason="x", requests=requests, singles=requests)
    case = trial(asked)
    judgement = judge([replace(case, node=replace(case.node, cpus_online=cpus))])
    assert ("single_request_sweeps" in judgement.findings) is found
    assert judgement.verdict is Verdict.QUIET


def test_a_run_whose_containers_all_failed_says_so() -> None:
    assert judge([trial(count=0, containers=containers(1, failed=22))]).reasons == (
        "too_few_containers",
        "containers_failed",
    )
    assert "containers_failed" not in judge([trial(containers=containers(3, failed=20))]).reasons


def test_without_containers_no_broadcast_comes_with_them() -> None:
    assert "broadcasts_elsewhere" not in judge([trial(count=0)]).findings
