"""Requests to isolated CPUs in alerts: above quiet, by function and by CPU; null where nobody counted."""

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window, with_isolated
from kickwatch.model import Cell, ContentionRung, Control, IpiRung, Observers, Origin, Path, Trial
from kickwatch.outlets.excess import excesses, per_cpu_above_quiet
from kickwatch.outlets.isolation import (
    confirm_line,
    cpu_list,
    hit_field,
    isolated_cpus_hit,
    isolated_name,
    isolated_per_container,
    isolation_fields,
)

KICK = replace(kick(23), isolated=46, isolated_cpus=(2, 3))
BACKGROUND = replace(RCU, requests=160, isolated=0)


def kicked(*cells: Cell, **fields: object) -> Trial:
    """23 containers, each with one kick of CPUs 1 to 3, of which 2 and 3 are isolated. CPU 0 sends."""
    given: dict[str, object] = {
        "churn": window("churn", BACKGROUND, KICK, *cells, per_cpu=(160, 23, 23, 23)),
        "quiet": window("quiet", replace(BACKGROUND, requests=100), per_cpu=(100, 0, 0, 0)),
        "isolated_cpus": (2, 3),
    }
    return trial(**(given | fields))


def test_each_kick_counts_once_for_each_isolated_cpu_it_reaches() -> None:
    fields = isolation_fields([kicked()])
    assert fields["isolated_cpus"] == [2, 3]
    assert fields["isolated_cpus_hit"] == [2, 3]
    assert fields["requests_per_container"] == 2.0
    assert fields["functions"] == [
        {
            "reason": "kick_all_cpus_sync",
            "func": "do_nothing",
            "origin": "slab",
            "path": "create",
            "asked_by": "__do_tune_cpucache",
            "cpus": [2, 3],
            "requests_per_container": 2.0,
        }
    ]
    assert fields["headline"] == (
        "2 requests per container reach isolated CPUs 2-3: most are kick_all_cpus_sync (2), asked for by"
        " __do_tune_cpucache"
    )
    assert fields["meaning"].startswith("kick_all_cpus_sync")


def test_what_comes_as_often_without_containers_is_not_theirs() -> None:
    timer = Cell(
        reason="nohz_csd_func", func="nohz_csd_func", origin=Origin.SCHED, path=Path.OTHER, requests=90, isolated=90
    )
    quiet = window("quiet", BACKGROUND, timer, per_cpu=(160, 0, 90, 0))
    one = kicked(timer, quiet=quiet)
    one = replace(one, churn=replace(one.churn, per_cpu=(160, 23, 113, 23)))
    fields = isolation_fields([one])
    assert [row["reason"] for row in fields["functions"]] == ["kick_all_cpus_sync"]
    assert fields["requests_per_container"] == 2.0
    only_timer = replace(one, churn=window("churn", BACKGROUND, timer, per_cpu=(160, 0, 90, 0)))
    fields = isolation_fields([only_timer])
    assert (fields["functions"], fields["isolated_cpus_hit"], fields["requests_per_container"]) == ([], [], 0.0)
    assert fields["headline"] == "requests to isolated CPUs 2-3 come with containers"


def test_a_shorter_quiet_window_counts_by_its_rate() -> None:
    timer = Cell(reason="x", func="x", origin=Origin.SCHED, path=Path.OTHER, requests=200, isolated=200)
    half = window("quiet", replace(timer, requests=100, isolated=100), per_cpu=(0, 0, 100, 0), duration_ns=5 * 10**9)
    one = trial(churn=window("churn", timer, per_cpu=(0, 0, 200)), quiet=half, isolated_cpus=(2, 3))
    assert isolated_per_container([one]) == 0.0
    assert [excess.above_quiet for excess in excesses([one], lambda cell: cell.requests)] == [0.0]
    assert per_cpu_above_quiet(one) == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "one",
    [
        trial(kick(23)),
        kicked(isolated_cpus=()),
        replace(kicked(), churn=window("churn", TLB, kick(23)), quiet=window("quiet")),
        kicked(control=Control(passed=False, detail="0 of 23")),
        kicked(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)),
    ],
)
def test_no_zero_where_nobody_counted(one: Trial) -> None:
    fields = isolation_fields([one])
    keys = ("isolated_cpus_hit", "requests_per_container", "functions")
    assert [fields[key] for key in keys] == [None, None, None]


def test_other_alerts_name_the_cpus_only_where_some_are_isolated() -> None:
    assert hit_field([kicked()]) == {"isolated_cpus_hit": [2, 3]}
    assert hit_field([trial(kick(23))]) == {}
    uncounted = replace(kicked(), churn=replace(kicked().churn, per_cpu=None))
    assert hit_field([uncounted]) == {"isolated_cpus_hit": None}


def test_cpus_are_summed_over_trials_with_the_same_isolated_cpus() -> None:
    other = kicked(isolated_cpus=(1,), churn=window("churn", KICK, per_cpu=(0, 999, 999, 999)))
    once = window("churn", BACKGROUND, per_cpu=(160, 0, 2, 0))
    quiet = window("quiet", BACKGROUND, per_cpu=(160, 0, 0, 0))
    rare = kicked(churn=once, quiet=quiet)
    assert isolated_cpus_hit([other, rare]) == [2]  # 2 of 23 containers
    assert isolated_cpus_hit([other, rare, rare, kicked(churn=window("churn", BACKGROUND), quiet=quiet)]) == [2]
    assert isolated_cpus_hit([rare, kicked(churn=replace(once, per_cpu=(160, 0, 0, 0)), quiet=quiet)]) == []


def test_the_command_shows_the_isolated_cpus_alone_where_the_tracepoint_names_the_target() -> None:
    assert "/(args->cpu >= 2 && args->cpu <= 3)/" in confirm_line(kicked(), None)
    assert "/(args->cpu >= 4 && args->cpu <= 6) || args->cpu == 9/" in confirm_line(
        kicked(isolated_cpus=(9, 4, 5, 6)), None
    )
    kprobes = kicked(observers=Observers(ipis=IpiRung.KPROBE, contention=ContentionRung.NONE))
    assert 'kaddr("do_nothing")' in confirm_line(kprobes, KICK)
    assert "args->cpu" not in confirm_line(kprobes, KICK)


def test_a_list_of_cpus_is_in_the_kernels_form() -> None:
    assert cpu_list(()) == ""
    assert cpu_list((7,)) == "7"
    assert (isolated_name((7,)), isolated_name((6, 7))) == ("isolated CPU 7", "isolated CPUs 6-7")
    assert cpu_list((8, 0, 1, 2, 3, 6, 7)) == "0-3,6-8"


def test_a_built_trial_sums_to_its_requests() -> None:
    """The builder spreads what it has, so tests with it can be trusted."""
    one = with_isolated(trial(kick(23)))
    assert one.churn.per_cpu is not None
    assert sum(one.churn.per_cpu) == sum(cell.requests for cell in one.churn.cells)
