"""The report's figures are the history's: each computed here once more, from the records, in another way."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest

import builders
from kickwatch.detect.monitor import Monitor
from kickwatch.model import ContentionRung, Disturbance, IpiRung, Observers, Trial, Verdict
from report_history import PACE, faulty_history, report_on

EACH = 12


@pytest.fixture(scope="module")
def records() -> list[Trial]:
    return list(faulty_history(EACH))


@pytest.fixture(scope="module")
def found(records: list[Trial]) -> dict[str, Any]:
    return report_on(records)


def creation(cells: Sequence[Any]) -> int:
    origins = {"slab", "memcg", "cgroup", "namespace", "percpu"}
    return sum(cell.broadcasts for cell in cells if cell.path == "create" and cell.origin in origins)


def above(trial: Trial, reason: str | None = None) -> float:
    sums = [
        sum(cell.requests for cell in window.cells if reason in {None, cell.reason})
        for window in (trial.churn, trial.quiet)
    ]
    scale = trial.churn.duration_ns / trial.quiet.duration_ns if trial.quiet.duration_ns else 0.0
    return sums[0] - sums[1] * scale


def test_totals_are_those_of_the_records(records: list[Trial], found: dict[str, Any]) -> None:
    total, lives = found["total"], [life for one in records for life in one.containers]
    assert total["trials"] == len(records) == 4 * EACH
    assert total["containers"] == len(lives)
    assert total["creation_path_broadcasts"] == sum(creation(one.churn.cells) for one in records) > 0
    assert total["containers_with_broadcasts"] == sum(bool(life.creation_path_broadcasts) for life in lives)
    assert total["requests_per_container"] == pytest.approx(sum(map(above, records)) / len(lives), abs=1e-3)
    assert total["slab_mutex_waits"] == sum(wait.waits for one in records for wait in one.churn.waits) > 0


def test_each_kernel_has_its_own_figures(records: list[Trial], found: dict[str, Any]) -> None:
    assert [row["kernel"] for row in found["kernels"]] == ["6.18.44", "4.19.1-patched", "4.19.1"]
    for row in found["kernels"]:
        own = [one for one in records if one.node.kernel == row["kernel"]]
        containers = sum(len(one.containers) for one in own)
        assert (row["trials"], row["containers"]) == (len(own), containers)
        each = sum(creation(one.churn.cells) for one in own) / containers
        assert row["creation_path_broadcasts_per_container"] == pytest.approx(each, abs=1e-3)
    assert [bool(row["creation_path_broadcasts"]) for row in found["kernels"]] == [False, False, True]


def test_the_bill_adds_up_every_cell(records: list[Trial], found: dict[str, Any]) -> None:
    requests: Counter[tuple[str, ...]] = Counter()
    broadcasts: Counter[tuple[str, ...]] = Counter()
    for one in records:
        for cell in one.churn.cells:
            requests[cell.reason, cell.func, cell.origin.value, cell.path.value] += cell.requests
            broadcasts[cell.reason, cell.func, cell.origin.value, cell.path.value] += cell.broadcasts
    rows = {(row["reason"], row["func"], row["origin"], row["path"]): row for row in found["bill"]}
    assert rows.keys() == requests.keys()
    assert {key: row["requests"] for key, row in rows.items()} == requests
    assert {key: row["broadcasts"] for key, row in rows.items()} == broadcasts
    assert found["bill"][0]["reason"] == "kick_all_cpus_sync"  # what matters stands first
    assert found["bill"][0]["creation_path"]


def test_bins_and_stacks_add_up_to_the_whole(records: list[Trial], found: dict[str, Any]) -> None:
    assert found["bin_trials"] == 1
    assert len(found["bins"]) == len(records)
    for one, of in zip(records, found["bins"], strict=True):
        assert of["requests_per_container"]["flush_tlb_func"] == pytest.approx(
            above(one, "flush_tlb_func") / len(one.containers), abs=1e-3
        )
    for figure in ("requests", "broadcasts"):
        roots = [frame for frame in found["stacks"][figure] if frame["depth"] == 0]
        whole = sum(getattr(cell, figure) for one in records for cell in one.churn.cells)
        assert 0.99 * whole <= sum(frame["x1"] - frame["x0"] for frame in roots) <= whole


def test_the_histogram_of_waits_and_the_cpus(records: list[Trial], found: dict[str, Any]) -> None:
    faulty = [one for one in records if one.observers.contention != "none"]
    columns = zip(*(one.churn.wait_histogram_ns for one in faulty), strict=True)
    assert found["waits"]["churn_histogram_ns"] == [sum(column) for column in columns]
    # by CPU: as many as all CPUs of the cells got, but for rounding
    total = sum(map(above, records)) / found["total"]["containers"]
    assert sum(found["per_cpu"]) == pytest.approx(total, rel=0.01)


def test_spans_are_those_of_the_nodes_and_verdicts(records: list[Trial], found: dict[str, Any]) -> None:
    monitor = Monitor(PACE)
    state, verdicts = monitor.start(), []
    for one in records:
        state, outcome = monitor.step(state, one)
        verdicts.append(outcome.verdict.value)
    for name, values in {
        "verdict": verdicts,
        "kernel": [one.node.kernel for one in records],
        "engine": [one.node.engine for one in records],
        "boot": [one.node.boot_id for one in records],
    }.items():
        expected = [(value, len(list(run))) for value, run in groupby(values)]
        assert [(span["value"], span["trials"]) for span in found["spans"][name]] == expected
    assert found["verdict"] == verdicts[-1] == Verdict.BROADCASTING
    assert next(change["kind"] for change in found["changes"] if change["alarm"] == "broadcasting") == "raised"


def test_evidence_is_that_of_the_monitor(records: list[Trial], found: dict[str, Any]) -> None:
    monitor = Monitor(PACE)
    state = monitor.start()
    for one, of in zip(records, found["bins"], strict=True):
        state, _ = monitor.step(state, one)
        for name, figures in monitor.figures(state).items():
            assert of["evidence"][name] == float(f"{figures.evidence:.4g}")
            assert found["evidence"][name]["threshold"] == figures.threshold


def test_time_without_trials_is_a_gap_whose_reason_is_not_known(found: dict[str, Any]) -> None:
    assert [gap["why"] for gap in found["gaps"]] == ["not known", "another boot", "another boot"]
    assert all(gap["last_unix_s"] - gap["first_unix_s"] > 3 * PACE.period_s for gap in found["gaps"])


def test_a_void_trial_counts_as_void_only() -> None:
    void = builders.trial(builders.kick(23), void=Disturbance.SUSPENDED.value)
    found = report_on([builders.trial(), void])
    assert (found["total"]["trials"], found["total"]["void_trials"]) == (1, 1)
    assert found["total"]["void"] == {"suspended": 1}
    assert found["total"]["creation_path_broadcasts"] == 0


def test_what_no_probe_saw_is_not_known_and_not_zero() -> None:
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    found = report_on([builders.trial(observers=blind)])
    total = found["total"]
    for name in ("creation_path_broadcasts", "requests_per_container", "slab_mutex_waits", "slab_mutex_wait_ms"):
        assert total[name] is None, name
    assert found["bill"] is found["waits"] is found["per_cpu"] is None
    assert found["bins"][0]["requests_per_container"] is None


def test_no_trials_are_a_report_too() -> None:
    found = report_on([])
    assert (found["verdict"], found["reasons"], found["total"]["trials"]) == ("unknown", ["no trials"], 0)
    assert json.dumps(found, allow_nan=False)


def test_many_trials_are_merged_into_few_bins() -> None:
    records = [builders.trial(started_unix_s=1000.0 * number) for number in range(1500)]
    found = report_on(records)
    assert 100 <= len(found["bins"]) <= 200
    assert found["bin_trials"] == 8
    assert sum(one["trials"] for one in found["bins"]) == 1500
    assert sum(one["containers"] for one in found["bins"]) == 1500 * 23
    firsts = [one["first_unix_s"] for one in found["bins"]]
    assert firsts == sorted(firsts)
