"""The report of a passive daemon's history: others' containers, and no figure of trials that nobody made."""

from typing import Any

import pytest
from msgspec.structs import replace

import builders
from kickwatch.model import ContentionRung, Control, IpiRung, Look, Observers, Trial, Window, WindowKind
from kickwatch.report.bug import bug_text
from kickwatch.report.history_text import history_text
from kickwatch.report.html.page import page
from report_history import report_on

LOOK = Look(containers=5, cgroups=50, own=10, others=5)


def record(number: int = 0, **changed: Any) -> Trial:
    """As passive mode writes it: the window has what the whole machine sent."""
    churn = builders.window("passive", builders.TLB, builders.kick(7), waits=(builders.wait(3),))
    empty = Window(kind=WindowKind.QUIET, duration_ns=0, interrupts=churn.interrupts)
    made = replace(builders.trial(), churn=churn, quiet=empty, containers=(), canary=None, looks=(LOOK, LOOK))
    return replace(made, **({"trial_id": f"{number:08x}"} | changed))


def test_the_containers_of_others_and_what_they_broadcast_are_in_the_report() -> None:
    (row,) = report_on([record(0), record(1)])["passive"]
    assert (row["records"], row["containers"], row["cgroups_made"], row["slab_mutex_waits"]) == (2, 20, 200, 6)
    assert (row["own_broadcasts"], row["own_broadcasts_per_container"]) == (40, 2.0)
    assert (row["other_broadcasts"], row["other_broadcasts_per_cgroup"]) == (20, 0.1)


def test_broadcasts_in_a_record_whose_control_failed_are_not_known() -> None:
    blind = record(1, control=Control(passed=False, detail="0 of 23"))
    (row,) = report_on([blind])["passive"]
    figures = ("own_broadcasts", "own_broadcasts_per_container", "other_broadcasts", "other_broadcasts_per_cgroup")
    assert [row[name] for name in figures] == [None] * 4
    assert row["containers"] == 10
    (both,) = report_on([record(0), blind])["passive"]
    assert (both["containers"], both["own_broadcasts"], both["own_broadcasts_per_container"]) == (20, 20, 2.0)
    for form in (history_text, page):
        assert form(report_on([blind]))
    assert "others started 10 containers unobserved" in bug_text(report_on([blind]), {})


def test_what_the_whole_machine_sent_in_passive_mode_is_no_figure_of_trials() -> None:
    """Before, its requests and broadcasts were divided by the containers of trials under the same kernel."""
    alone, mixed = report_on([builders.trial()]), report_on([builders.trial(), record(1)])
    assert mixed["total"] == alone["total"] | {"trials": 2}
    assert mixed["bill"] == alone["bill"]
    of_bins = ("containers", "requests_per_container", "creation_path_broadcasts_per_container")
    trials = [one for one in mixed["bins"] if one["containers"]]
    assert [[one[name] for name in of_bins] for one in trials] == [[alone["bins"][0][name] for name in of_bins]]
    assert mixed["stacks"] != alone["stacks"]  # stacks are of all that was seen


def test_a_history_of_passive_mode_alone_has_no_zeros_of_trials() -> None:
    text = history_text(report_on([record(0), record(1)]))
    assert max(map(len, text.splitlines())) <= 80
    assert "UTC: 2 records of passive mode, 0 void" in text
    for misleading in (
        "0 trials",
        "0 containers",
        "0 failed",
        "no probe attributed",
        "no probe saw",
        "KERNELS",
        "canary",
    ):
        assert misleading not in text, misleading
    (line,) = [line for line in text.splitlines() if " 20 " in line]
    assert line.split()[1:] == ["2", "20", "2", "0.1", "6"]


def test_beside_trials_each_has_its_own_rows() -> None:
    text = history_text(report_on([builders.trial(), record(1)]))
    assert "1 trials, 1 records of passive mode, 0 void" in text
    assert "KERNELS, per container" in text
    assert "PASSIVE MODE, containers that others started" in text


def test_zeros_of_a_record_that_may_have_lost_all_are_not_known() -> None:
    nothing = replace(LOOK, own=0, others=0)
    lossy = replace(record().churn, waits=(), lost_events=4, lost_requests=4, lost_waits=1)
    (row,) = report_on([record(churn=lossy, looks=(nothing, nothing))])["passive"]
    assert (row["own_broadcasts"], row["other_broadcasts"], row["slab_mutex_waits"]) == (None, None, None)
    (row,) = report_on([record(churn=replace(lossy, lost_requests=3, lost_waits=0), looks=(nothing, nothing))])[
        "passive"
    ]
    assert (row["own_broadcasts"], row["other_broadcasts"], row["slab_mutex_waits"]) == (0, 0, 0)


def test_waits_that_no_probe_saw_are_not_known() -> None:
    blind = Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE)
    (row,) = report_on([record(observers=blind)])["passive"]
    assert row["slab_mutex_waits"] is None


@pytest.mark.parametrize(("records", "shown"), [([record()], True), ([builders.trial()], False)])
def test_the_page_has_a_table_of_passive_mode_where_there_is_one(records: list[Trial], shown: bool) -> None:
    html = page(report_on(records))
    assert ('id="passive"' in html) is shown
    assert ("containers of others" in html) is shown


def test_the_text_for_a_kernel_mailing_list_has_what_passive_mode_found() -> None:
    """Before, 0 containers made the creation path broadcast an unknown number of IPIs."""
    text = bug_text(report_on([record(number) for number in range(12)]), {})
    flat = " ".join(text.split())
    assert text.startswith("Subject: do_nothing broadcast to all CPUs for each container created")
    assert "while others started 120 containers, tasks of these sent 240 broadcasts on the creation path" in flat
    assert "and other tasks 120 for 1200 cgroups that were made (12 records" in flat
    assert "Engine: any (kickwatch started no container: passive mode)" in flat
    assert "Waits for slab_mutex: 36 in all." in text
    assert "flush_tlb_func" not in text  # the whole machine's
    assert max(map(len, text.splitlines())) <= 72


def test_without_a_broadcast_the_text_blames_nothing() -> None:
    calm = Look(containers=5, cgroups=50)
    churn = builders.window("passive", builders.TLB)
    text = bug_text(report_on([record(churn=churn, looks=(calm,))]), {})
    assert "tasks of these sent 0 broadcasts on the creation path" in " ".join(text.split())
    assert "for each container created" not in text
