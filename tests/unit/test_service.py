"""The daemon's own logic: which trials are judged together, what is noted, how signals end it."""

import asyncio
import os
import signal

import pytest
import structlog
from msgspec.structs import replace

from builders import containers, kick, trial
from kickwatch.alert.condition import Conditions
from kickwatch.service import _note, _recent, _tell, until_signalled


def test_the_newest_trials_with_enough_containers_are_judged_together() -> None:
    trials = [replace(trial(count=4), trial_id=str(number)) for number in range(6)]
    assert [one.trial_id for one in _recent(trials)] == ["3", "4", "5"]


def test_trials_whose_containers_all_fail_do_not_pile_up() -> None:
    kept: list[object] = []
    for _ in range(50):
        kept = list(_recent([*kept, trial(containers=containers(0, failed=5))]))  # type: ignore[list-item]
    assert len(kept) <= 10


def test_a_trial_is_logged_and_an_alert_follows_once() -> None:
    conditions = Conditions()
    with structlog.testing.capture_logs() as logs:
        _tell(conditions, [trial(kick(100))])
        _tell(conditions, [trial(kick(100))])
    assert [log["event"] for log in logs] == [
        "kickwatch.trial_finished",
        "kickwatch.broadcast_detected",
        "kickwatch.trial_finished",
    ]
    assert logs[1]["log_level"] == "error"


def test_a_note_is_said_once() -> None:
    said: set[str] = set()
    with structlog.testing.capture_logs() as logs:
        _note(trial(notes=("a knob is ignored",)), said)
        _note(trial(notes=("a knob is ignored", "another")), said)
    assert [log["what"] for log in logs] == ["a knob is ignored", "another"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_ends_the_work_and_further_ones_change_nothing(number: signal.Signals) -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            cleaned.append(True)

    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
    with pytest.raises(asyncio.CancelledError):
        await until_signalled(work())
    assert cleaned == [True]
