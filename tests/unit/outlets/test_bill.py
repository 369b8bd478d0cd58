"""The hour's bill: what is added up, what is left out, and that telling it empties it."""

from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, wait, window
from kickwatch.detect.state import TrialOutcome
from kickwatch.model import (
    Cell,
    ContentionRung,
    Control,
    IpiRung,
    KmemAccounting,
    Observers,
    Origin,
    Path,
    Trial,
    Verdict,
)
from kickwatch.outlets.bill import MOST_CELLS, Bill, Percentiles

QUIET = TrialOutcome(trial="0badcafe", verdict=Verdict.QUIET)
SICK = TrialOutcome(trial="0badcafe", verdict=Verdict.BROADCASTING)


def bill(*trials: Trial, outcome: TrialOutcome = QUIET) -> Bill:
    """A bill with those trials."""
    one = Bill()
    for each in trials:
        one.add(each, outcome)
    return one


def test_before_the_first_trial_nothing_is_claimed() -> None:
    told = Bill().take(3600.04)
    assert told["verdict"] == "unknown"
    assert told["period_s"] == 3600.0
    assert told["trials"] == told["containers"] == told["failed"] == 0
    assert told["creation_path_broadcasts_per_container"] is None
    assert told["slab_mutex_waits"] is None
    assert told["bill"] is None
    assert told["latency_ms"]["create"] == {"p50": None, "p99": None}
    assert "kernel" not in told


def test_trials_add_up_per_container_of_them_all() -> None:
    told = bill(trial(kick(46), count=23), trial(count=17, containers=containers(17, failed=2)), outcome=SICK).take(60)
    assert told["verdict"] == "broadcasting"
    assert told["mode"] == "experiment"
    assert (told["trials"], told["containers"], told["failed"]) == (2, 40, 2)
    assert told["creation_path_broadcasts_per_container"] == 1.15
    assert told["bill"][0] == {
        "reason": "kick_all_cpus_sync",
        "origin": "slab",
        "path": "create",
        "requests_per_container": 3.45,
        "broadcasts_per_container": 1.15,
    }
    assert (told["kernel"], told["engine"], told["cpus_online"]) == ("6.18.0", "docker 20.10.24", 4)


def test_requests_are_above_the_quiet_rate_also_where_only_the_quiet_window_had_them() -> None:
    """One trial has 1200 - 100, the other 0 - 100: 1000 over 40 containers; each alone would lean upwards."""
    other = trial(count=17, churn=window("churn", RCU))
    (tlb,) = [row for row in bill(trial(count=23), other).take(60)["bill"] if row["reason"] == "flush_tlb_func"]
    assert tlb["requests_per_container"] == 25.0


def test_a_cell_of_quiet_windows_alone_is_not_on_the_bill() -> None:
    silent = trial(churn=window("churn", RCU), quiet=window("quiet", TLB))
    assert [row["reason"] for row in bill(silent).take(60)["bill"]] == ["rcu_exp_handler"]


def test_cells_that_differ_in_their_function_alone_are_one_row() -> None:
    told = bill(trial(churn=window("churn", TLB, replace(TLB, func="other")), quiet=window("quiet"))).take(60)
    assert [row["requests_per_container"] for row in told["bill"]] == [round(2400 / 23, 3)]


def test_the_dearest_cells_are_told_those_that_broadcast_first() -> None:
    cells = [
        Cell(reason=f"f{i:02}", func="f", origin=Origin.SCHED, path=Path.OTHER, requests=1000 + i) for i in range(30)
    ]
    told = bill(trial(churn=window("churn", *cells, kick(1)), quiet=window("quiet"))).take(60)["bill"]
    assert len(told) == MOST_CELLS
    assert [row["reason"] for row in told[:3]] == ["kick_all_cpus_sync", "f29", "f28"]


def test_void_trials_count_by_reason_and_for_nothing_else() -> None:
    void = trial(kick(1000), containers=containers(20, failed=3), void="cpus_changed,tracing_toggled")
    one = bill(trial(count=23), outcome=SICK)
    one.add(void, QUIET)
    one.add(replace(void, void="cpus_changed"), QUIET)
    one.add(trial(kmem_accounting=KmemAccounting.OFF), QUIET)
    told = one.take(60)
    assert told["void"] == {"cpus_changed": 2, "tracing_toggled": 1, "kmem_accounting_off": 1}
    assert (told["trials"], told["containers"], told["failed"]) == (1, 23, 6)
    assert told["creation_path_broadcasts_per_container"] == 0
    assert told["verdict"] == "broadcasting"


def test_void_trials_for_reasons_of_another_release_are_counted_together() -> None:
    told = bill(*(trial(void=f"reason_{number}") for number in range(40))).take(60)["void"]
    assert told == {"other": 40}


@pytest.mark.parametrize(
    "blind",
    [
        trial(kick(9), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)),
        trial(kick(9), control=Control(passed=False, detail="0 of 23")),
    ],
)
def test_a_trial_whose_probe_did_not_attribute_claims_no_cells(blind: Trial) -> None:
    told = bill(blind).take(60)
    assert told["containers"] == 23
    assert told["creation_path_broadcasts_per_container"] is None
    assert told["bill"] is None
    mixed = bill(blind, trial(kick(23))).take(60)
    assert mixed["containers"] == 46
    assert mixed["creation_path_broadcasts_per_container"] == 1


def test_waits_add_up_and_an_unknown_mutex_is_not_zero_waits() -> None:
    contended = trial(churn=window("churn", TLB, waits=(wait(7), wait(3, holder="cat"))))
    told = bill(contended, contended, trial(slab_mutex_known=False)).take(60)
    assert told["slab_mutex_waits"] == 20
    assert told["slab_mutex_wait_ms"] == 120
    assert told["slab_mutex_longest_ms"] == 9
    assert bill(trial(slab_mutex_known=False)).take(60)["slab_mutex_waits"] is None
    assert bill(trial()).take(60)["slab_mutex_waits"] == 0


def test_waits_that_no_probe_sees_are_not_zero_though_the_ipi_probe_knows_the_mutex() -> None:
    told = bill(
        trial(observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE), slab_mutex_known=True)
    ).take(60)
    assert told["slab_mutex_waits"] is told["slab_mutex_wait_ms"] is told["slab_mutex_longest_ms"] is None
    assert told["bill"]


def test_the_longest_wait_is_not_zero_where_an_earlier_one_was_longer() -> None:
    """The probe tells the longest since it was armed, so a window whose waits were shorter does not know its own."""
    shorter = trial(churn=window("churn", TLB, waits=(replace(wait(3), max_wait_ns=0),)))
    assert bill(shorter).take(60)["slab_mutex_longest_ms"] is None
    longer = trial(churn=window("churn", TLB, waits=(wait(1),)))
    assert bill(shorter, longer).take(60)["slab_mutex_longest_ms"] == 9
    assert bill(longer, shorter).take(60)["slab_mutex_longest_ms"] == 9
    assert bill(trial()).take(60)["slab_mutex_longest_ms"] == 0


def test_latencies_are_those_of_the_containers_that_count() -> None:
    told = bill(trial(containers=containers(23, failed=5))).take(60)["latency_ms"]
    assert told["start"]["p50"] == pytest.approx(200, rel=0.03)
    assert told["create"]["p99"] == pytest.approx(12, rel=0.03)


def test_telling_the_bill_empties_it_but_for_what_lasts() -> None:
    one = bill(trial(kick(46)), outcome=SICK)
    one.paused(12.34)
    one.paused(7)
    assert one.take(60)["paused_s"] == 19.3
    again = one.take(60)
    assert again["paused_s"] == again["trials"] == 0
    assert again["bill"] is None
    assert again["verdict"] == "broadcasting"
    assert again["kernel"] == "6.18.0"


@given(st.lists(st.floats(0.01, 1e6), min_size=200, max_size=400))
def test_percentiles_are_within_three_percent_of_the_true_ones(durations_ms: list[float]) -> None:
    sketch = Percentiles()
    for duration_ms in durations_ms:
        sketch.add(duration_ms)
    ordered = sorted(durations_ms)
    for percent in (50, 99):
        true = ordered[-(-len(ordered) * percent // 100) - 1]
        assert sketch.at(percent) == pytest.approx(true, rel=0.03)


def test_percentiles_agree_with_the_report_on_many_durations() -> None:
    durations_ms = [1.01**number for number in range(1000)]
    sketch = Percentiles()
    for duration_ms in durations_ms:
        sketch.add(duration_ms)
    cuts = quantiles(durations_ms, n=100, method="inclusive")
    assert sketch.at(50) == pytest.approx(cuts[49], rel=0.03)
    assert sketch.at(99) == pytest.approx(cuts[98], rel=0.03)


@given(st.lists(st.floats(-1e9, 1e12), max_size=300))
def test_percentiles_take_bounded_memory_whatever_comes(durations_ms: list[float]) -> None:
    sketch = Percentiles()
    for duration_ms in durations_ms:
        sketch.add(duration_ms)
    assert len(sketch.buckets) <= 32 * 16 + 1
    assert sketch.buckets.total() == len(durations_ms)
