"""The JSON contract of `trial --json`, and the tables made from the same figures."""

import json

import pytest
from msgspec.structs import replace

from builders import RCU, containers, kick, trial, wait, window
from kickwatch.detect.verdict import judge
from kickwatch.model import Control, Interrupts, Trial
from kickwatch.report.summary import summarise
from kickwatch.report.tables import table, trial_text

CONTRACT = {
    "schema", "verdict", "reasons", "findings", "containers", "failures", "kmem_accounting", "kernel", "cpus_online",
    "engine", "cgroup", "observers", "per_container", "canary", "bill", "latency_ms", "overhead",
}  # fmt: skip


def told(one: Trial) -> dict[str, object]:
    summary = summarise(one, judge([one]))
    assert json.loads(json.dumps(summary)) == summary
    return summary


def test_every_key_of_the_contract_is_there() -> None:
    summary = told(trial())
    assert set(summary) >= CONTRACT
    assert summary["schema"] == 1
    assert set(summary["per_container"]) == {  # type: ignore[call-overload]
        "cal", "tlb", "res", "requests", "broadcasts", "creation_path_broadcasts", "slab_mutex_waits",
        "slab_mutex_wait_ns",
    }  # fmt: skip
    assert set(summary["bill"][0]) == {  # type: ignore[index]
        "reason", "func", "origin", "path", "requests", "calls", "broadcasts", "under_slab_mutex",
        "sweeps_per_container", "quiet_rate_hz", "stack",
    }  # fmt: skip


def test_sweeps_are_requests_above_quiet_by_other_cpu_and_container() -> None:
    one = trial(count=10, quiet=window("quiet", replace(RCU, requests=10)))
    row = next(row for row in told(one)["bill"] if row["reason"] == "rcu_exp_handler")  # type: ignore[attr-defined]
    assert row["sweeps_per_container"] == pytest.approx((160 - 10) / 3 / 10)
    assert row["quiet_rate_hz"] == 1


def test_counters_are_above_quiet_and_missing_ones_stay_missing() -> None:
    assert told(trial(count=29))["per_container"]["cal"] == pytest.approx((3000 - 100) / 29)  # type: ignore[index]
    arm = trial(churn=window("churn", RCU, interrupts=Interrupts(cal=10, tlb=None, res=1)))
    assert told(arm)["per_container"]["tlb"] is None  # type: ignore[index]


def test_waits_for_a_mutex_that_is_not_known_are_not_zero() -> None:
    unknown = trial(slab_mutex_known=False)
    assert told(unknown)["per_container"]["slab_mutex_waits"] is None  # type: ignore[index]
    assert "not known yet" in trial_text(unknown, judge([unknown]))


def test_failures_are_reported_and_do_not_count() -> None:
    summary = told(trial(containers=containers(12, failed=2)))
    assert summary["containers"] == 12
    assert len(summary["failures"]) == 2  # type: ignore[arg-type]


def test_a_trial_without_a_container_has_no_latencies() -> None:
    assert told(trial(containers=containers(0, failed=1)))["latency_ms"]["start"] == {"p50": None, "p99": None}  # type: ignore[index]


def test_the_tables_say_what_a_person_asks() -> None:
    sick = trial(kick(32 * 23), control=Control(passed=True, detail="23 of 23 multi-CPU calls"))
    sick = replace(sick, churn=replace(sick.churn, waits=(wait(7),)))
    text = trial_text(sick, judge([sick]))
    assert "23 containers on docker 20.10.24 (none), Linux 6.18.0, 4 CPUs, cgroup v1" in text
    assert "positive control passed: the probe counted 23 of 23 multi-CPU calls" in text
    assert "kick_all_cpus_sync  slab" in text
    assert "slab_start  kworker/0:1" in text
    assert "32 broadcasts per container" in text
    assert "verdict: broadcasting (creation_path_broadcasts)" in text


def test_a_failed_control_is_blindness_and_shown() -> None:
    blind = trial(control=Control(passed=False, detail="0 of 23 multi-CPU calls"))
    assert judge([blind]).reasons == ("blind",)
    assert "positive control FAILED: the probe counted 0 of 23" in trial_text(blind, judge([blind]))


def test_numbers_stand_to_the_right() -> None:
    assert table(("name", "n"), [("a", "5"), ("long", "12")]) == "  name   n\n  a      5\n  long  12"
