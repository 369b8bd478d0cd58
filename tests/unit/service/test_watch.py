"""What the daemon remembers between trials: which are judged together, what is noted, what the control says."""

import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from builders import TLB, containers, kick, trial, window
from kickwatch.configuration.types import Config, StateConfig
from kickwatch.errors import KickwatchError
from kickwatch.journal.remark import Remark, RemarkKind, losses
from kickwatch.model import ContentionRung, Control, IpiRung, Observers, Trial
from kickwatch.service.evidence import Evidence
from kickwatch.service.verdict_age import VerdictAge
from kickwatch.service.watch import Watch, newest

PASSED = Control(passed=True, detail="23 of 23 multi-CPU calls")


def test_the_newest_trials_with_enough_containers_are_judged_together() -> None:
    trials = [replace(trial(count=4), trial_id=str(number)) for number in range(6)]
    assert [one.trial_id for one in newest(trials)] == ["3", "4", "5"]


def test_trials_whose_containers_all_fail_do_not_pile_up() -> None:
    kept: list[object] = []
    for _ in range(50):
        kept = list(newest([*kept, trial(containers=containers(0, failed=5))]))  # type: ignore[list-item]
    assert len(kept) <= 10


class TheEyes:
    """Stands in for the armed observers: only what Watch asks of them between trials."""

    def __init__(self, control: Control) -> None:
        self.control = control


async def watch_of(tmp_path: Path, control: Control = PASSED) -> Watch:
    config = replace(Config(), state=StateConfig(directory=str(tmp_path)))
    return Watch(TheEyes(control), await Evidence.open(config))  # type: ignore[arg-type]


def faulty(number: int) -> Trial:
    lives = tuple(replace(life, creation_path_broadcasts=3) for life in containers(4))
    return replace(trial(kick(12), containers=lives), trial_id=f"{number:08x}")


async def test_trials_are_logged_and_an_alert_follows_once(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for number in range(5):
            await watch.take(faulty(number))
    alerts = [log for log in logs if log["event"] == "kickwatch.broadcast_detected"]
    assert len(alerts) == 1
    assert len([log for log in logs if log["event"] == "kickwatch.trial_finished"]) == 5
    assert alerts[0]["log_level"] == "error"
    assert alerts[0]["reason"] == "kick_all_cpus_sync"
    assert alerts[0]["explanation"]
    assert alerts[0]["first_trial"] == "00000000"


async def test_a_restart_in_mid_evidence_alerts_after_the_same_trial(tmp_path: Path) -> None:
    def alerted_at(logs: list[Any]) -> list[int]:
        finished, at = 0, []
        for log in logs:
            finished += log["event"] == "kickwatch.trial_finished"
            at += [finished] if log["event"] == "kickwatch.broadcast_detected" else []
        return at

    mild = [
        replace(faulty(number), containers=tuple(replace(life, creation_path_broadcasts=1) for life in containers(1)))
        for number in range(30)
    ]
    mild = [replace(one, churn=window("churn", TLB, kick(1))) for one in mild]
    with structlog.testing.capture_logs() as whole:
        watch = await watch_of(tmp_path / "whole")
        for one in mild:
            await watch.take(one)
    with structlog.testing.capture_logs() as parts:
        for one in mild:
            await (await watch_of(tmp_path / "parts")).take(one)
    assert alerted_at(whole) == alerted_at(parts)
    assert len(alerted_at(whole)) == 1


async def test_a_void_trial_is_said_and_proves_nothing(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for number in range(20):
            await watch.take(replace(faulty(number), void="engine_restarted"))
    assert {log["event"] for log in logs} == {"kickwatch.trial_void"}


async def test_a_failed_control_is_an_alert_and_so_is_the_next_that_passes(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path, Control(passed=False, detail="0 of 23 multi-CPU calls"))
    with structlog.testing.capture_logs() as logs:
        watch.controlled()
        watch.controlled()
        watch.armed.control = PASSED
        watch.controlled()
        watch.controlled()
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("kickwatch.observer_blind", "error"),
        ("kickwatch.observer_sees", "info"),
    ]
    assert "0 of 23" in logs[0]["what"]


async def test_a_remark_is_logged_once_by_the_event_of_its_kind(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    knob, runtime = (
        Remark(RemarkKind.KNOB_IGNORED, "a knob is ignored"),
        Remark(RemarkKind.RUNTIME_DRIVEN, "as configured"),
    )
    with structlog.testing.capture_logs() as logs:
        watch.note(losses(("no probe",)))
        watch.note((knob,))
        watch.note((*losses(("no probe", "no mutex")), knob, runtime))
    assert [(log["event"], log["log_level"], log["what"]) for log in logs] == [
        ("kickwatch.capability_lost", "warning", "no probe"),
        ("kickwatch.knob_ignored", "warning", "a knob is ignored"),
        ("kickwatch.capability_lost", "warning", "no mutex"),
        ("kickwatch.runtime_driven", "info", "as configured"),
    ]


async def test_the_notes_of_a_record_are_not_logged_again(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs() as logs:
        await watch.take(replace(faulty(0), notes=("no probe",)))
    assert "no probe" not in str(logs)


async def test_whether_the_newest_trial_was_kept_is_known(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch = await watch_of(tmp_path / "file")
    with structlog.testing.capture_logs():
        await watch.take(faulty(0))
        assert not watch.evidence.kept
        (tmp_path / "file").unlink()
        await watch.take(faulty(1))
    assert watch.evidence.kept


async def test_the_condition_follows_evidence_and_control(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    assert watch.condition == "unknown"
    for _ in range(3):
        await watch.take(trial())
    assert watch.condition == "quiet"
    watch.armed.control = Control(passed=False, detail="0 of 23 multi-CPU calls")
    with structlog.testing.capture_logs():
        watch.controlled()
        assert watch.condition == "unknown"
        for number in range(5):
            await watch.take(faulty(number))
    assert watch.condition == "broadcasting"


def failed(number: int = 4) -> Trial:
    return trial(containers=containers(0, failed=number))


def named(logs: list[Any], event: str) -> list[Any]:
    return [log for log in logs if log["event"] == f"kickwatch.{event}"]


async def test_a_fresh_watch_knows_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    assert (watch.condition, watch.reasons) == ("unknown", ("insufficient_evidence",))
    assert (watch.more_containers, watch.verdict_age_s) == (23, None)
    await watch.take(trial(count=20))
    assert (watch.condition, watch.more_containers) == ("unknown", 3)
    await watch.take(trial(count=20))
    assert (watch.condition, watch.reasons, watch.more_containers) == ("quiet", (), None)
    assert watch.verdict_age_s is not None
    assert watch.verdict_age_s < 5.0


async def test_failing_containers_are_one_warning_with_the_engines_words_and_their_end_another(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs() as logs:
        await watch.take(trial())
        for _ in range(5):
            await watch.take(failed())
        assert (watch.condition, watch.reasons) == ("unknown", ("containers_failed",))
        await watch.take(trial(count=4))
    (warning,) = named(logs, "containers_failed")
    assert warning["log_level"] == "warning"
    assert warning["what"] == "container kickwatch-x-0 did not start"
    assert (warning["failed"], warning["containers"]) == (4, 4)
    assert [log["verdict"] for log in named(logs, "trial_finished")] == ["quiet", "quiet", *["unknown"] * 4, "quiet"]
    assert len(named(logs, "containers_run")) == 1
    assert watch.condition == "quiet"


async def test_a_verdict_that_nobody_confirmed_becomes_stale_once_and_fresh_once(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    now_s = 1000.0
    watch.age = VerdictAge(0.0, lambda: now_s)
    await watch.take(trial())
    with structlog.testing.capture_logs() as logs:
        now_s += 86_400.0
        watch.note_age()
        assert watch.condition == "quiet"
        now_s += 1.0
        watch.note_age()
        watch.note_age()
        assert (watch.condition, watch.reasons) == ("unknown", ("stale",))
        await watch.take(replace(trial(), void="cpus_changed"))
        assert watch.reasons == ("stale",)  # a void trial confirms nothing
        await watch.take(replace(trial(), started_unix_s=9.0))
    assert watch.condition == "quiet"
    assert len(named(logs, "verdict_stale")) == len(named(logs, "verdict_fresh")) == 1


async def test_an_alarm_does_not_go_stale(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    now_s = 0.0
    watch.age = VerdictAge(0.0, lambda: now_s)
    with structlog.testing.capture_logs():
        for number in range(5):
            await watch.take(replace(faulty(number), started_unix_s=number + 1.0))
    now_s = 1e6
    assert watch.condition == "broadcasting"
    assert watch.verdict_age_s == 1e6


async def test_the_age_outlives_a_restart(tmp_path: Path) -> None:
    await (await watch_of(tmp_path)).take(replace(trial(), started_unix_s=time.time() - 90_000.0))
    watch = await watch_of(tmp_path)
    assert (watch.condition, watch.reasons) == ("unknown", ("stale",))
    assert watch.verdict_age_s == pytest.approx(90_000.0, abs=60.0)


async def test_silence_of_another_boot_is_not_this_ones(tmp_path: Path) -> None:
    one = trial()
    await (await watch_of(tmp_path)).take(
        replace(one, started_unix_s=time.time(), node=replace(one.node, boot_id="before"))
    )
    watch = await watch_of(tmp_path)
    assert watch.condition == "quiet"
    watch.boot_id = "after"
    assert (watch.condition, watch.reasons, watch.more_containers) == ("unknown", ("insufficient_evidence",), 23)


def test_a_clock_that_was_set_back_makes_no_verdict_young() -> None:
    assert VerdictAge(time.time() + 1000.0).seconds == pytest.approx(0.0, abs=5.0)


async def test_what_counters_cannot_tell_is_not_zero(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs() as logs:
        await watch.take(trial(observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)))
        await watch.take(trial(kick(9), control=Control(passed=False, detail="0 of 23")))
    assert [log["creation_path_broadcasts"] for log in named(logs, "trial_finished")] == [None, None]
    assert watch.reasons == ("blind",)


async def test_trials_that_fail_as_a_whole_are_failed_containers_too(tmp_path: Path) -> None:
    """A user's image that was pruned: no container is begun, and the condition must not stay quiet."""
    watch = await watch_of(tmp_path)
    gone = KickwatchError("the image app:1 is not on this node", "docker pull app:1")
    with structlog.testing.capture_logs() as logs:
        await watch.take(trial())
        watch.not_run(gone)
        assert watch.condition == "quiet"
        for _ in range(3):
            watch.not_run(gone)
        assert (watch.condition, watch.reasons) == ("unknown", ("containers_failed",))
        await watch.take(trial())
    (warning,) = named(logs, "containers_failed")
    assert (warning["what"], warning["remedy"]) == (gone.what, gone.remedy)
    assert len(named(logs, "containers_run")) == 1
    assert watch.condition == "quiet"


async def test_an_alarm_of_another_boot_is_not_this_ones(tmp_path: Path) -> None:
    watch = await watch_of(tmp_path)
    with structlog.testing.capture_logs():
        for number in range(5):
            await watch.take(replace(faulty(number), node=replace(trial().node, boot_id="before")))
    assert watch.condition == "broadcasting"
    watch.boot_id = "after"
    assert (watch.condition, watch.more_containers) == ("unknown", 23)
