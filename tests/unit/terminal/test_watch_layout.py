"""The screen of `kickwatch watch`: nothing is too wide or too high, and nothing unknown looks like zero."""

import pytest
from msgspec.structs import replace

from kickwatch.detect.streams import StreamName
from kickwatch.errors import KickwatchError
from kickwatch.model import Condition
from kickwatch.outlets.live_status import GuardStatus, Rates, StreamStatus, TrialStatus, Waiting
from kickwatch.outlets.status import Presence, Sight
from kickwatch.terminal.watch_layout import screen
from kickwatch.terminal.watch_view import View
from watched_status import (
    BLIND,
    CONTENDED,
    FAULTY,
    LACKS,
    NOW,
    OLD,
    PASSIVE,
    PROGRESS,
    STATUS,
    STREAMS,
    TRIAL,
    UNCOUNTED,
    YOUNG,
    running,
    stopped,
)

LONG = "a very long text of an engine that explains itself at length " * 8
LOUD = replace(
    FAULTY,
    doing=LONG,
    alerts={"broadcasting": ("attributed",) * 20, "elsewhere": ("elsewhere_pairs",), "of the future": ("x",)},
    progress=replace(
        PROGRESS,
        engine=LONG,
        kernel=LONG,
        losses=(LONG, "no kprobes"),
        guard=replace(PROGRESS.guard, paused=True, what=LONG),
    ),
    trial=replace(TRIAL, bill=TRIAL.bill * 9),
    rates=Rates(span_s=5.0, requests={LONG: 1e9, **{f"reason_{n}": n * 1.0 for n in range(30)}}),
)
VIEWS = {
    "quiet": running(),
    "broadcasting": running(FAULTY),
    "contended": running(CONTENDED),
    "blind": running(BLIND),
    "young": running(YOUNG),
    "earlier version": running(OLD),
    "everything is long": running(LOUD),
    "nothing but the condition": running(replace(STATUS, progress=None, streams=None, rates=None, trial=None)),
    "late": running(updated_unix_s=NOW - 500.0),
    "passive": running(PASSIVE),
    "passive, uncounted": running(UNCOUNTED),
    "void": running(trial=None, void_trial=TrialStatus(trial_id="1", void={"suspended": 1})),
    "stopped": stopped(),
    "stopped, never seen": stopped(None, None),
    "another kickwatch": View(Sight(Presence.OTHER, LOUD, 99, KickwatchError("it is not there")), NOW, NOW - 3.0),
}
SIZES = [(80, 24), (200, 50), (119, 30), (120, 24), (60, 12), (40, 8), (20, 5), (7, 2), (1, 1), (500, 100)]


def shown(view: View, columns: int = 80, rows: int | None = 24) -> str:
    return "\n".join(line.plain.rstrip() for line in screen(view, columns, rows, footer="q: quit"))


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_nothing_is_wider_or_higher_than_the_terminal(name: str, columns: int, rows: int) -> None:
    lines = screen(VIEWS[name], columns, rows, footer="q: quit   Ctrl-L: redraw")
    assert len(lines) == rows
    assert max(line.cell_len for line in lines) <= columns
    assert not [line for line in lines if "\n" in line.plain]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("condition", Condition)
def test_the_condition_and_its_age_come_first(condition: Condition, columns: int, rows: int) -> None:
    lines = shown(running(condition=condition), columns, rows).splitlines()
    assert lines[1].startswith(f"{condition.upper()} for 2 h 3 min; last confirmed by a trial 4 min ago")


def test_a_healthy_daemon_at_80_by_24_has_every_figure() -> None:
    text = shown(running())
    for part in (
        "creating containers does not make the kernel interrupt all CPUs",
        "now: between two trials; next trial in 32 s at the earliest",
        "EVIDENCE",
        "elsewhere_pairs [###############---------------]",
        "IPIs PER SECOND",
        "sched_ttwu_pending    1200 ####",
        "BILL PER CONTAINER  latest trial (began 4 min ago, 23 containers)",
        "flush_tlb_func",
        "slab_mutex: nobody waited in the latest trial; nobody waits now",
        "GUARD  calm",
        "budget: containers 46/60 per hour, 46/1440 per day; CPU 0.21 % (limit 1 %)",
        "probe control passed; 41 trials, 943 containers",
        "q: quit",
    ):
        assert part in text, f"{part!r} is not in\n{text}"


def test_the_fault_is_said_in_words_and_its_cell_comes_first() -> None:
    text = shown(running(FAULTY))
    assert "CREATING CONTAINERS MAKES THE KERNEL INTERRUPT ALL CPUs" in text
    assert "ALERT: the creation path broadcasts (attributed, signature)" in text
    assert "next: journalctl -x KICKWATCH_EVENT=kickwatch.broadcast_detected -n 1" in text
    assert "next: journalctl" not in shown(running())
    rows = text.splitlines()
    assert "attributed" in rows[next(n for n, row in enumerate(rows) if row.startswith("EVIDENCE")) + 1]
    assert "ALARM" in text
    first = rows[next(n for n, row in enumerate(rows) if row.startswith("BILL")) + 2]
    assert first.split() == ["2", "2", "create", "memcg", "do_sync_core"]
    assert "7 waits in the latest trial (42 ms in all, longest 9 ms)" in text


def test_why_nothing_is_known() -> None:
    assert "why: the observers failed their positive control" in shown(running(BLIND))
    assert "probe control FAILED" in shown(running(BLIND))
    young = shown(running(YOUNG))
    assert "quiet needs 19 more containers without a broadcast" in young
    assert "not confirmed by any trial yet" in young
    assert "not known: no trial yet since this daemon started" in young


def test_what_is_not_known_is_no_zero() -> None:
    no_probe = running(
        rates=Rates(span_s=5.0, interrupts={"CAL": 1.0}),
        trial=replace(TRIAL, bill=None, slab_mutex_waits=None, creation_path_broadcasts_per_container=None),
    )
    text = shown(no_probe)
    assert "creation-path broadcasts: not known" in text
    assert "by reason: not known (no probe attributes them)" in text
    assert "not known: no probe attributes requests" in text
    assert "slab_mutex: latest trial: not known (not observed, or lost); now not known" in text
    assert "io pressure not known (at most 50)" in shown(running(), 80, 60)
    assert shown(running(OLD)).count("not known (the daemon is of an earlier version)") >= 5


def test_the_state_of_a_dead_daemon_is_never_shown_as_live() -> None:
    text = shown(stopped(FAULTY))
    lines = text.splitlines()
    assert lines[1] == "NOT RUNNING"
    assert "(1 min ago), when it was last seen" in text
    assert "LAST STATE  as the daemon left it; it says nothing about now" in text
    assert "BROADCASTING" not in text
    assert "CREATING CONTAINERS" not in text
    assert "EVIDENCE" not in text
    assert "last state: not known" in shown(stopped(None, None))


def test_another_kickwatch_is_no_daemon() -> None:
    assert "Another kickwatch (pid 99) holds this node" in shown(VIEWS["another kickwatch"])


def test_a_daemon_that_writes_no_more_is_named() -> None:
    assert "NO NEWS for 8 min" in shown(running(updated_unix_s=NOW - 500.0))
    assert "NO NEWS" not in shown(running(updated_unix_s=NOW - 19.0))
    assert "NO NEWS" not in shown(running(OLD)), "an earlier version writes none during a trial"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"waits_for": Waiting.BUDGET, "next_trial_in_s": 1502.0}, "in 25 min, when the budget allows it"),
        ({"waits_for": Waiting.DRAIN, "next_trial_in_s": None}, "when the drain ends"),
        ({"waits_for": Waiting.ENGINE, "next_trial_in_s": None}, "when a container engine answers"),
        ({"waits_for": Waiting.GUARD, "next_trial_in_s": None}, "when the node is calm again"),
        ({"waits_for": None, "next_trial_in_s": None}, "next trial not known"),
        (
            {"waits_for": None, "trial_since_s": 30.0},
            "running for 32 s",
        ),
        ({"mode": "passive"}, "no trials: passive mode starts no containers"),
    ],
)
def test_what_the_next_trial_waits_for(changed: dict[str, object], said: str) -> None:
    assert said in shown(running(progress=replace(PROGRESS, **changed)))


def test_a_pause_of_the_guard() -> None:
    paused = GuardStatus(paused=True, what="io pressure 63.0 % (limit 50 %)", readings=PROGRESS.guard.readings, age_s=1)
    text = shown(running(progress=replace(PROGRESS, guard=paused, waits_for=Waiting.GUARD)))
    assert "GUARD  trials are paused: io pressure 63.0 % (limit 50 %)" in text


def test_passive_mode_has_periods_and_no_trials() -> None:
    passive = replace(PROGRESS, mode="passive", waits_for=None, next_trial_in_s=None)
    assert "the first period of passive mode has not ended" in shown(running(progress=passive, trial=None))
    assert "latest period (ended 4 min ago, 9 containers, a lower bound)" in shown(running(PASSIVE))
    assert "CONTAINERS OF OTHERS  9 since the daemon's start (docker 7, runc 2)" in shown(running(PASSIVE))


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_what_passive_mode_does_not_do_is_not_shown_as_missing_or_as_zero(columns: int, rows: int) -> None:
    """Trials, a guard and limits do not apply, and most streams observe nothing."""
    text = shown(running(PASSIVE), columns, rows)
    assert "nothing in it can establish `quiet`" in " ".join(text.split())
    for misleading in ("yet", "trial ", "0 containers", "/60 per hour", "not looked", "limit 1 %", "canary"):
        assert misleading not in text.replace("no trials", ""), misleading
    assert "EVIDENCE  probe control passed; 2 records; full bar = alarm" in text
    assert [name for name in StreamName if f"  {name} " in text] == ["attributed", "signature"]
    assert "GUARD  off: there are no trials to pause" in text
    assert "budget: no limit applies; CPU 0.21 %" in text
    assert "slab_mutex: nobody waited in the latest period" in text


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_others_that_nothing_counts_are_not_known_with_the_cause(columns: int, rows: int) -> None:
    text = shown(running(UNCOUNTED), columns, rows)
    assert f"CONTAINERS OF OTHERS  not known: {LACKS}" in text
    assert f"CANNOT SEE  {LACKS}" in text
    assert "latest period (ended 4 min ago, ? containers, a lower bound)" in text
    assert "not known: no probe attributes requests to containers" in text
    assert "slab_mutex: latest period: not known (not observed, or lost); now not known" in text


def test_a_period_without_containers_has_no_bill() -> None:
    empty = replace(PASSIVE.trial, containers=0, bill=())
    assert "  none: nobody started a container in it" in shown(running(replace(PASSIVE, trial=empty)), 80, 40)


def test_a_passive_daemon_that_ended_left_no_trials() -> None:
    assert "pid 4711, 2 records of passive mode since the evidence began" in shown(stopped(PASSIVE))


def test_two_columns_on_a_wide_terminal() -> None:
    rows = shown(running(), 200, 50).splitlines()
    assert any(row.startswith("EVIDENCE") and "IPIs PER SECOND" in row for row in rows)
    assert any("io pressure" in row for row in rows)


def test_what_does_not_fit_is_counted() -> None:
    many = running(streams=STREAMS | {f"stream_{n}": StreamStatus(0.0, 1e9, False) for n in range(10)})
    assert "streams with less" in shown(many)
    assert "streams with less" not in shown(many, 200, 50)


def test_a_name_cannot_steer_the_terminal() -> None:
    text = shown(running(progress=replace(PROGRESS, engine="docker \x1b[2J\x07")))
    assert "\x1b" not in text
    assert "docker ?[2J?" in shown(running(progress=replace(PROGRESS, engine="docker \x1b[2J\x07")), 200, 50)
