"""Isolated CPUs in `trial`: a column and a line where some exist, null where nobody counted."""

import json

from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window, with_isolated
from kickwatch.detect.verdict import judge
from kickwatch.model import Trial
from kickwatch.report.isolation import own_work_text
from kickwatch.report.summary import summarise
from kickwatch.report.tables import trial_text


def shown(one: Trial) -> str:
    return trial_text(one, judge([one]))


def figures(one: Trial) -> dict[str, object]:
    summary = summarise(one, judge([one]))
    assert json.loads(json.dumps(summary)) == summary
    return summary


KICK = replace(kick(23), isolated=46)
KICKED = trial(
    churn=window("churn", replace(TLB, isolated=0), KICK, replace(RCU, isolated=7), per_cpu=(1367, 23, 28, 28)),
    quiet=window("quiet", replace(TLB, isolated=0, requests=100), per_cpu=(98, 1, 1, 0), duration_ns=5_000_000_000),
    isolated_cpus=(2, 3),
)


def test_without_isolated_cpus_the_table_is_as_before() -> None:
    assert "isolated" not in shown(trial(kick(23)))
    assert " requests  calls  broadcasts " in shown(trial(kick(23)))
    counted = replace(KICKED, isolated_cpus=())  # a probe that counts them all the same
    assert "isolated" not in shown(counted)
    assert {row["isolated"] for row in figures(counted)["bill"]} == {None}  # type: ignore[attr-defined]


def test_with_isolated_cpus_each_cell_shows_its_share() -> None:
    lines = shown(KICKED).splitlines()
    (head,) = [line for line in lines if line.startswith("  reason")]
    assert " requests  isolated  calls  broadcasts " in head
    (row,) = [line for line in lines if "kick_all_cpus_sync" in line and "slab" in line and "create" in line]
    at = head.index("isolated")
    assert row[at : at + len("isolated")].strip() == "46"
    assert "isolated CPUs 2-3: 2.3 requests per container above the quiet window (CPU 2 1.13, CPU 3 1.22)" in lines


def test_json_has_requests_by_cpu_above_quiet() -> None:
    summary = figures(KICKED)
    assert summary["isolated_cpus"] == [2, 3]
    assert summary["per_cpu"] == [1367 - 2 * 98, 23 - 2 * 1, 28 - 2 * 1, 28.0]
    assert [row["isolated"] for row in summary["bill"]] == [0, 46, 7]  # type: ignore[attr-defined]
    assert summary["per_container"]["isolated_requests"] == round(53 / 23, 3)  # type: ignore[index]


def test_ipis_of_every_kind_are_shown_where_they_were_counted() -> None:
    counted = replace(
        KICKED, churn=replace(KICKED.churn, isolated_ipis=100), quiet=replace(KICKED.quiet, isolated_ipis=4)
    )
    assert figures(counted)["isolated_ipis"] == 92
    assert "CPU 3 1.22); 4 IPIs of every kind" in shown(counted)
    assert figures(KICKED)["isolated_ipis"] is None
    assert "IPIs of every kind" not in shown(KICKED)
    assert figures(replace(counted, isolated_cpus=()))["isolated_ipis"] is None


def test_null_where_nobody_counted() -> None:
    old = figures(trial(kick(23)))
    assert (old["isolated_cpus"], old["per_cpu"]) == ([], None)
    uncounted = replace(trial(kick(23)), isolated_cpus=(2, 3))
    summary = figures(uncounted)
    assert (summary["per_cpu"], summary["per_container"]["isolated_requests"]) == (None, None)  # type: ignore[index]
    text = shown(uncounted)
    assert "isolated CPUs 2-3: requests not known" in text
    assert "kick_all_cpus_sync  slab" in text
    assert "not known" in next(line for line in text.splitlines() if "kick_all_cpus_sync" in line)


def test_of_many_isolated_cpus_the_line_shows_those_that_are_hit_most() -> None:
    cpus = tuple(range(1, 12))
    churn = window("churn", replace(RCU, isolated=66), per_cpu=tuple(range(12)))
    many = trial(churn=churn, quiet=window("quiet", per_cpu=(0,) * 12), isolated_cpus=cpus, count=1)
    (line,) = [line for line in shown(many).splitlines() if line.startswith("isolated CPUs 1-11")]
    assert "(most: CPU 4 4, CPU 5 5" in line
    assert "CPU 11 11)" in line
    assert "CPU 3 3" not in line


def test_a_built_trial_is_whole() -> None:
    assert "isolated CPUs 2-3:" in shown(with_isolated(trial(kick(23))))


def test_what_kickwatch_sends_outside_the_halves_is_printed_by_kind_of_work() -> None:
    reached = {
        "start_to_stop": {"requests": None, "interrupts": 260},
        "arming": {"requests": None, "interrupts": 132},
        "warm_up": {"requests": 4, "interrupts": 2},
        "reclaim": {"requests": None, "interrupts": None},
    }
    assert own_work_text((2, 3), reached) == (
        "isolated CPUs 2-3, outside halves and windows, by any sender: arming 132 interrupts; warm up 4 requests,"
        " 2 interrupts; reclaim not known; from start to stop 260 interrupts, halves and windows included"
    )
