"""`kickwatch watch` without a terminal: one line for each change, and none for a figure that grows by itself."""

from msgspec.structs import replace

from kickwatch.outlets.live_status import TrialStatus, Waiting
from kickwatch.outlets.status import Presence, Sight
from kickwatch.terminal.watch import json_lines
from kickwatch.terminal.watch_lines import changes
from kickwatch.terminal.watch_view import View
from watched_status import FAULTY, NOW, PROGRESS, STATUS, running, stopped


def said(before: View | None, view: View) -> list[str]:
    return [line.partition(" ")[2] for line in changes(before, view)]


def test_the_first_look_says_what_there_is() -> None:
    assert said(None, running()) == [
        "daemon: running: kickwatch 0.1.0, pid 4711, Linux 6.18.44",
        "condition: quiet: creating containers does not make the kernel interrupt all CPUs",
        "control of the observers: passed",
        "engine: docker 20.10.24 (runc 1.1)",
        "trial: 0badcafe: 23 containers, 0 failed, 0 creation-path broadcasts per container, 0 waits for slab_mutex",
    ]


def test_time_alone_is_no_change() -> None:
    later = running(
        updated_unix_s=NOW,
        verdict_age_s=300.0,
        progress=replace(PROGRESS, next_trial_in_s=3.0, guard=replace(PROGRESS.guard, age_s=9.0)),
    )
    assert said(running(), later) == []
    assert json_lines(running(), later) == []


def test_an_alert_comes_and_goes() -> None:
    assert said(running(), running(FAULTY))[:2] == [
        "condition: broadcasting: CREATING CONTAINERS MAKES THE KERNEL INTERRUPT ALL CPUs",
        "alerts: the creation path broadcasts (attributed, signature)",
    ]
    assert "alerts: none" in said(running(FAULTY), running())


def test_the_daemon_stops_and_another_starts() -> None:
    (line,) = said(running(), stopped(seen_s=NOW))
    assert line.startswith("daemon: not running since 20")
    assert line.endswith("it was quiet (between two trials, pid 4711)")
    (line,) = said(stopped(seen_s=NOW), View(Sight(Presence.OTHER, STATUS, 99), NOW, NOW))
    assert "another kickwatch (pid 99) holds this node" in line
    assert said(stopped(), running(pid=5000))[0].startswith("daemon: running: kickwatch 0.1.0, pid 5000")
    assert said(None, stopped(None, None)) == ["daemon: not running; last state not known"]


def test_pauses_drains_and_void_trials() -> None:
    paused = replace(
        PROGRESS,
        guard=replace(PROGRESS.guard, paused=True, what="io pressure 63.0 %"),
        waits_for=Waiting.GUARD,
        losses=("no kprobes",),
    )
    assert said(running(), running(progress=paused)) == [
        "guard: trials are paused",
        "cannot see: no kprobes",
    ]
    drained = replace(PROGRESS, waits_for=Waiting.DRAIN)
    assert said(running(), running(progress=drained)) == ["trials: none while the node is drained"]
    assert said(running(progress=drained), running()) == ["trials: go on"]
    void = running(void_trial=TrialStatus(trial_id="1", void={"suspended": 1}))
    assert said(running(), void) == ["void trial: 1: suspended"]


def test_what_is_not_known_is_said() -> None:
    blind = running(trial=TrialStatus(trial_id="2"))
    assert said(running(), blind) == [
        "trial: 2: not known containers, not known failed, not known creation-path broadcasts per container,"
        " not known waits for slab_mutex"
    ]


def test_a_line_is_one_line() -> None:
    assert all("\n" not in line for line in changes(None, running(progress=replace(PROGRESS, engine="a\nb\x1b[2J"))))
