"""Isolated CPUs in `trial`: a column and a line where some exist, null where nobody counted."""

import json
import re

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window, with_isolated
from kickwatch.detect.verdict import judge
from kickwatch.model import Trial
from kickwatch.report.isolation import own_work_text
from kickwatch.report.summary import summarise
from screens import prose, screen


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


def test_without_isolated_cpus_the_table_has_no_such_column() -> None:
    assert "isolat" not in screen(trial(kick(23)))
    assert "broadcasts  requests  the CPUs run " in screen(trial(kick(23)))
    counted = replace(KICKED, isolated_cpus=())  # a probe that counts them all the same
    assert "isolat" not in screen(counted)
    assert {row["isolated"] for row in figures(counted)["bill"]} == {None}  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [80, 200])
def test_with_isolated_cpus_each_cell_shows_its_share_per_container(columns: int) -> None:
    lines = screen(KICKED, columns=columns).splitlines()
    (head,) = [line for line in lines if line.startswith("broadcasts  requests")]
    assert head.startswith("broadcasts  requests  isolated  the CPUs run ")
    (row,) = [line for line in lines if re.match(" +[0-9.]+ .*kick_all_cpus_sync", line)]
    assert row.split()[:3] == ["1.00", "3.00", "2.00"]
    (reached,) = [line for line in lines if "rcu_exp_handler" in line]  # on no list of faults, but it reached one
    assert reached.split()[2:4] == ["0.30", "rcu_exp_handler"]
    text = prose(KICKED, columns=columns)
    assert "isolated CPUs 2-3: 2.3 requests per container above the quiet window (CPU 2 1.13, CPU 3 1.22)" in text


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
    assert "CPU 3 1.22); 4 IPIs of every kind" in prose(counted)
    assert figures(KICKED)["isolated_ipis"] is None
    assert "IPIs of every kind" not in prose(KICKED)
    assert figures(replace(counted, isolated_cpus=()))["isolated_ipis"] is None


def test_null_where_nobody_counted() -> None:
    old = figures(trial(kick(23)))
    assert (old["isolated_cpus"], old["per_cpu"]) == ([], None)
    uncounted = replace(trial(kick(23)), isolated_cpus=(2, 3))
    summary = figures(uncounted)
    assert (summary["per_cpu"], summary["per_container"]["isolated_requests"]) == (None, None)  # type: ignore[index]
    text = screen(uncounted)
    assert "isolated CPUs 2-3: requests not known" in text
    assert "not known" in next(line for line in text.splitlines() if re.match(" +1.00 .*kick_all_cpus_sync", line))
    assert "not known" in next(line for line in text.splitlines() if "background" in line)


def test_of_many_isolated_cpus_the_line_shows_those_that_are_hit_most() -> None:
    cpus = tuple(range(1, 12))
    churn = window("churn", replace(RCU, isolated=66), per_cpu=tuple(range(12)))
    many = trial(churn=churn, quiet=window("quiet", per_cpu=(0,) * 12), isolated_cpus=cpus, count=1)
    (line,) = [line for line in screen(many).splitlines() if "isolated CPUs 1-11" in line]
    assert "(most: CPU 4 4, CPU 5 5" in line
    assert "CPU 11 11)" in line
    assert "CPU 3 3" not in line


def test_a_built_trial_is_whole() -> None:
    assert "isolated CPUs 2-3:" in prose(with_isolated(trial(kick(23))))


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
