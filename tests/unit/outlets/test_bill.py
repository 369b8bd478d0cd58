"""The bill of an hour: what it adds up, what it leaves out, and that each summary resets it."""

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
BROADCASTING = TrialOutcome(trial="0badcafe", verdict=Verdict.BROADCASTING)


def bill(*trials: Trial, outcome: TrialOutcome = QUIET) -> Bill:
    """A bill of these trials."""
    one = Bill()
    for each in trials:
        one.add(each, outcome)
    return one


def test_before_the_first_trial_the_fields_are_empty() -> None:
    fields = Bill().take(3600.04)
    assert fields["verdict"] == "unknown"
    assert fields["period_s"] == 3600.0
    assert fields["trials"] == fields["containers"] == fields["failed"] == 0
    assert fields["creation_path_broadcasts_per_container"] is None
    assert fields["slab_mutex_waits"] is None
    assert fields["bill"] is None
    assert fields["latency_ms"]["create"] == {"p50": None, "p99": None}
    assert "kernel" not in fields


def test_figures_are_per_container_of_all_trials() -> None:
    fields = bill(
        trial(kick(46), count=23), trial(count=17, containers=containers(17, failed=2)), outcome=BROADCASTING
    ).take(60)
    assert fields["verdict"] == "broadcasting"
    assert fields["mode"] == "experiment"
    assert (fields["trials"], fields["containers"], fields["failed"]) == (2, 40, 2)
    assert fields["creation_path_broadcasts_per_container"] == 1.15
    assert fields["bill"][0] == {
        "reason": "kick_all_cpus_sync",
        "origin": "slab",
        "path": "create",
        "requests_per_container": 3.45,
        "broadcasts_per_container": 1.15,
    }
    assert (fields["kernel"], fields["engine"], fields["cpus_online"]) == ("6.18.0", "docker 20.10.24", 4)


def test_requests_of_a_quiet_window_are_subtracted_even_if_the_churn_window_has_none() -> None:
    """1200 - 100 in one trial and 0 - 100 in the other: 1000 over 40 containers."""
    other = trial(count=17, churn=window("churn", RCU))
    (tlb,) = [row for row in bill(trial(count=23), other).take(60)["bill"] if row["reason"] == "flush_tlb_func"]
    assert tlb["requests_per_container"] == 25.0


def test_a_cell_that_only_quiet_windows_have_is_not_on_the_bill() -> None:
    quiet_only = trial(churn=window("churn", RCU), quiet=window("quiet", TLB))
    assert [row["reason"] for row in bill(quiet_only).take(60)["bill"]] == ["rcu_exp_handler"]


def test_requests_to_isolated_cpus_are_per_container_of_the_trials_that_counted_them() -> None:
    """92 of 23 containers, 10 of them at the rate of the quiet window; the other trial counted none."""
    tlb = replace(TLB, isolated=92)
    one = trial(
        churn=window("churn", tlb, replace(RCU, isolated=0)),
        quiet=window("quiet", replace(TLB, isolated=5), duration_ns=5_000_000_000),
        isolated_cpus=(2, 3),
    )
    rows = {row["reason"]: row for row in bill(one, trial(kick(46), count=23)).take(60)["bill"]}
    assert rows["flush_tlb_func"]["isolated_per_container"] == round(82 / 23, 3)
    assert rows["rcu_exp_handler"]["isolated_per_container"] == 0.0
    only_quiet = replace(one, churn=window("churn", replace(RCU, isolated=0)))
    rows = {row["reason"]: row for row in bill(one, only_quiet).take(60)["bill"]}
    assert rows["flush_tlb_func"]["isolated_per_container"] == round((82 - 10) / 46, 3)
    uncounted = replace(one, control=Control(passed=False, detail="0 of 23"))
    assert "isolated_per_container" not in bill(uncounted, trial()).take(60)["bill"][0]


def test_cells_that_differ_only_in_their_function_are_one_row() -> None:
    fields = bill(trial(churn=window("churn", TLB, replace(TLB, func="other")), quiet=window("quiet"))).take(60)
    assert [row["requests_per_container"] for row in fields["bill"]] == [round(2400 / 23, 3)]


def test_the_most_expensive_cells_are_shown_those_with_broadcasts_first() -> None:
    cells = [
        Cell(reason=f"f{i:02}", func="f", origin=Origin.SCHED, path=Path.OTHER, requests=1000 + i) for i in range(30)
    ]
    fields = bill(trial(churn=window("churn", *cells, kick(1)), quiet=window("quiet"))).take(60)["bill"]
    assert len(fields) == MOST_CELLS
    assert [row["reason"] for row in fields[:3]] == ["kick_all_cpus_sync", "f29", "f28"]


def test_only_the_reasons_of_void_trials_are_counted() -> None:
    void = trial(kick(1000), containers=containers(20, failed=3), void="cpus_changed,tracing_toggled")
    one = bill(trial(count=23), outcome=BROADCASTING)
    one.add(void, QUIET)
    one.add(replace(void, void="cpus_changed"), QUIET)
    one.add(trial(kmem_accounting=KmemAccounting.OFF), QUIET)
    fields = one.take(60)
    assert fields["void"] == {"cpus_changed": 2, "tracing_toggled": 1, "kmem_accounting_off": 1}
    assert (fields["trials"], fields["containers"], fields["failed"]) == (1, 23, 6)
    assert fields["creation_path_broadcasts_per_container"] == 0
    assert fields["verdict"] == "broadcasting"


def test_reasons_of_another_release_are_counted_together() -> None:
    fields = bill(*(trial(void=f"reason_{number}") for number in range(40))).take(60)["void"]
    assert fields == {"other": 40}


@pytest.mark.parametrize(
    "blind",
    [
        trial(kick(9), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)),
        trial(kick(9), control=Control(passed=False, detail="0 of 23")),
    ],
)
def test_a_trial_whose_probe_did_not_attribute_adds_no_cells(blind: Trial) -> None:
    fields = bill(blind).take(60)
    assert fields["containers"] == 23
    assert fields["creation_path_broadcasts_per_container"] is None
    assert fields["bill"] is None
    mixed = bill(blind, trial(kick(23))).take(60)
    assert mixed["containers"] == 46
    assert mixed["creation_path_broadcasts_per_container"] == 1


def test_waits_add_up_and_are_unknown_without_the_address_of_the_mutex() -> None:
    contended = trial(churn=window("churn", TLB, waits=(wait(7), wait(3, holder="cat"))))
    fields = bill(contended, contended, trial(slab_mutex_known=False)).take(60)
    assert fields["slab_mutex_waits"] == 20
    assert fields["slab_mutex_wait_ms"] == 120
    assert fields["slab_mutex_longest_ms"] == 9
    assert bill(trial(slab_mutex_known=False)).take(60)["slab_mutex_waits"] is None
    assert bill(trial()).take(60)["slab_mutex_waits"] == 0


def test_waits_are_unknown_without_a_contention_probe_even_if_the_ipi_probe_knows_the_mutex() -> None:
    fields = bill(
        trial(observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE), slab_mutex_known=True)
    ).take(60)
    assert fields["slab_mutex_waits"] is fields["slab_mutex_wait_ms"] is fields["slab_mutex_longest_ms"] is None
    assert fields["bill"]


def test_the_longest_wait_is_unknown_if_an_earlier_one_was_longer() -> None:
    """The probe keeps the longest wait since it was armed, so a window with shorter waits does not know its own."""
    shorter = trial(churn=window("churn", TLB, waits=(replace(wait(3), max_wait_ns=0),)))
    assert bill(shorter).take(60)["slab_mutex_longest_ms"] is None
    longer = trial(churn=window("churn", TLB, waits=(wait(1),)))
    assert bill(shorter, longer).take(60)["slab_mutex_longest_ms"] == 9
    assert bill(longer, shorter).take(60)["slab_mutex_longest_ms"] == 9
    assert bill(trial()).take(60)["slab_mutex_longest_ms"] == 0


def test_latencies_are_those_of_the_containers_that_succeeded() -> None:
    fields = bill(trial(containers=containers(23, failed=5))).take(60)["latency_ms"]
    assert fields["start"]["p50"] == pytest.approx(200, rel=0.03)
    assert fields["create"]["p99"] == pytest.approx(12, rel=0.03)


def test_a_summary_resets_the_totals_and_keeps_verdict_and_node() -> None:
    one = bill(trial(kick(46)), outcome=BROADCASTING)
    one.paused(12.34)
    one.paused(7)
    assert one.take(60)["paused_s"] == 19.3
    again = one.take(60)
    assert again["paused_s"] == again["trials"] == 0
    assert again["bill"] is None
    assert again["verdict"] == "broadcasting"
    assert again["kernel"] == "6.18.0"


@given(st.lists(st.floats(0.01, 1e6), min_size=200, max_size=400))
def test_percentiles_are_off_by_at_most_three_percent(durations_ms: list[float]) -> None:
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
def test_percentiles_take_bounded_memory(durations_ms: list[float]) -> None:
    sketch = Percentiles()
    for duration_ms in durations_ms:
        sketch.add(duration_ms)
    assert len(sketch.buckets) <= 32 * 16 + 1
    assert sketch.buckets.total() == len(durations_ms)
