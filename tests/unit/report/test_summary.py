"""The JSON contract of `trial --json`, and the tables made from the same figures."""

import json

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, wait, window
from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import judge
from kickwatch.model import CanaryBatch, ContentionRung, Control, Count, Interrupts, IpiRung, Observers, Trial
from kickwatch.report.run_words import RunWords
from kickwatch.report.summary import summarise
from kickwatch.report.tables import table
from report_history import report_on
from screens import prose

CONTRACT = {
    "schema", "verdict", "reasons", "findings", "containers", "failures", "kmem_accounting", "kernel", "cpus_online",
    "engine", "cgroup", "observers", "per_container", "canary", "bill", "latency_ms", "overhead", "pairs",
    "isolated_cpus", "per_cpu", "isolated_ipis",
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
        "slab_mutex_wait_ns", "isolated_requests",
    }  # fmt: skip
    assert set(summary["bill"][0]) == {  # type: ignore[index]
        "reason", "func", "origin", "path", "requests", "isolated", "calls", "broadcasts", "under_slab_mutex",
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


COUNTERS = trial(
    churn=window("churn"),
    quiet=window("quiet"),
    observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE),
    slab_mutex_known=False,
)
REQUESTS = {"requests", "broadcasts", "creation_path_broadcasts"}
ISOLATED = {"isolated_requests"}  # known only where CPUs are isolated
WAITS = {"slab_mutex_waits", "slab_mutex_wait_ns"}
INTERRUPTS = {"cal", "tlb", "res"}


def unknown(one: Trial) -> set[str]:
    figures: dict[str, object] = told(one)["per_container"]  # type: ignore[assignment]
    return {name for name, figure in figures.items() if figure is None}


@pytest.mark.parametrize(
    ("one", "figures"),
    [
        (trial(), set()),
        (COUNTERS, REQUESTS | WAITS),
        (
            replace(COUNTERS, observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.TRACEPOINT)),
            REQUESTS | WAITS,
        ),
        (trial(observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE)), WAITS),
        (trial(slab_mutex_known=False), WAITS),
        (trial(control=Control(passed=False, detail="0 of 23")), REQUESTS),
        (trial(churn=window("churn")), REQUESTS),  # containers lived, and the probe saw nothing at all
        (trial(churn=window("churn", RCU, interrupts=Interrupts())), INTERRUPTS),
        (trial(containers=containers(0, failed=3)), REQUESTS | WAITS | INTERRUPTS),
    ],
)
def test_no_zero_where_nobody_looked(one: Trial, figures: set[str]) -> None:
    assert unknown(one) == figures | ISOLATED
    assert prose(one)


def test_counters_alone_have_no_bill_no_waits_and_no_losses() -> None:
    summary = told(COUNTERS)
    assert summary["bill"] is None
    assert summary["waits"] is None
    assert summary["overhead"] == {"lost_events": None, "stackless_events": None}
    assert summary["canary"] == {
        "memcgs": 100,
        "cal_minus_tlb_per_memcg": 0.0,
        "creation_path_broadcasts_per_memcg": None,
        "lost_events": None,
    }
    text = prose(COUNTERS)
    assert "verdict: unknown (blind)" in text
    assert "requests not known" in text
    assert "each creation-path broadcasts not known, 0 CAL minus TLB interrupts" in text
    assert "made to run is not known: no probe is armed" in text
    assert "slab_mutex waits not known, no probe measures them" in text
    assert "0 broadcasts" not in text
    assert "nobody waited" not in text


def test_a_silent_canary_that_lost_events_is_not_known_to_be_silent() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), lost_events=4)
    figures: dict[str, object] = told(trial(canary=batch))["canary"]  # type: ignore[assignment]
    assert (figures["creation_path_broadcasts_per_memcg"], figures["lost_events"]) == (None, 4)
    loud: dict[str, object] = told(trial(canary=replace(batch, cells=(kick(50),))))["canary"]  # type: ignore[assignment]
    assert loud["creation_path_broadcasts_per_memcg"] == 0.5


def test_waits_for_a_mutex_that_is_not_known_are_not_zero() -> None:
    unknown = trial(slab_mutex_known=False)
    assert "not known yet" in prose(unknown)
    assert "nobody waited" in prose(trial())


def test_the_ipi_probe_knows_the_mutex_for_its_own_figure_alone() -> None:
    sick = trial(kick(23, under=69), observers=Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE))
    assert {row["under_slab_mutex"] for row in told(sick)["bill"]} == {0, 69}  # type: ignore[attr-defined]
    assert told(sick)["waits"] is None
    for blind in (replace(sick, slab_mutex_known=False), replace(sick, senders_known=False)):
        assert {row["under_slab_mutex"] for row in told(blind)["bill"]} == {None}  # type: ignore[attr-defined]


def test_a_longest_wait_that_an_earlier_one_hides_is_not_zero() -> None:
    hidden = trial(churn=window("churn", RCU, waits=(replace(wait(3), max_wait_ns=0),)))
    assert told(hidden)["waits"][0]["max_wait_ns"] is None  # type: ignore[index]
    assert "not known" in prose(hidden)


def test_the_time_of_one_wait_is_its_longest() -> None:
    """4.19: `longest 0.000 ms` beside 42.7 ms of waits. One wait is as long as all of them."""
    alone = trial(churn=window("churn", RCU, waits=(replace(wait(1), wait_ns=42_700_000, max_wait_ns=0),)))
    assert told(alone)["waits"][0]["max_wait_ns"] == 42_700_000  # type: ignore[index]
    assert prose(alone).count("42.700") >= 2  # in total, and the longest


def test_failures_are_reported_and_do_not_count() -> None:
    summary = told(trial(containers=containers(12, failed=2)))
    assert summary["containers"] == 12
    assert len(summary["failures"]) == 2  # type: ignore[arg-type]


def test_a_trial_without_a_container_has_no_latencies() -> None:
    assert told(trial(containers=containers(0, failed=1)))["latency_ms"]["start"] == {"p50": None, "p99": None}  # type: ignore[index]


def test_the_tables_say_what_a_person_asks() -> None:
    calls = Count(expected_low=23, expected_high=23, seen=23)
    sick = trial(kick(32 * 23), control=Control(passed=True, detail="23 of 23 multi-CPU calls", calls=calls))
    sick = replace(sick, churn=replace(sick.churn, waits=(wait(7),)))
    text = prose(sick)
    assert "node Linux 6.18.0, 4 CPUs, cgroup v1, docker 20.10.24, network none" in text
    assert "control passed: counted 23 of 23 multi-CPU calls" in text
    assert "32.00 96.00 kick_all_cpus_sync __do_tune_cpucache create slab" in text
    assert "slab_mutex: 7 waits, 42.000 ms in total waits total ms longest ms waiter held by 7 42.000 9.000" in text
    assert "slab_start kworker/0:1" in text
    assert "verdict: broadcasting (creation_path_broadcasts)" in text


def test_a_failed_control_is_blindness_and_shown() -> None:
    calls = Count(expected_low=23, expected_high=23, seen=0)
    blind = trial(control=Control(passed=False, detail="0 of 23 multi-CPU calls", calls=calls))
    assert judge([blind]).reasons == ("blind",)
    unarmed = trial(control=Control(passed=False, detail="no probe is armed: kprobes are refused"))
    assert "control FAILED: no probe is armed: kprobes" in prose(unarmed)
    assert "control FAILED: counted 0 of 23" in prose(blind)


def test_numbers_stand_to_the_right() -> None:
    assert table(("name", "n"), [("a", "5"), ("long", "12")]) == "  name   n\n  a      5\n  long  12"


def test_a_trial_that_may_have_lost_all_broadcasts_has_no_figure_anywhere() -> None:
    """The report had 0 where the trial's own figure was None."""
    lossy = trial(churn=window("churn", TLB, lost_events=8, lost_requests=8))
    assert summarise(lossy, judge([lossy]))["per_container"]["creation_path_broadcasts"] is None
    silent = trial(churn=window("churn", TLB, lost_waits=1))
    assert summarise(silent, judge([silent]))["waits"] is None
    assert summarise(silent, judge([silent]))["per_container"]["slab_mutex_waits"] is None
    assert report_on([silent])["total"]["slab_mutex_waits"] is None
    total = report_on([lossy])["total"]
    assert (total["creation_path_broadcasts"], total["creation_path_broadcasts_per_container"]) == (None, None)
    assert "the probe lost requests" in RunWords([lossy], judge([lossy]), one_shot([lossy])).created_words
