"""The words of `status` and `watch` for what the daemon does."""

import pytest
from msgspec.structs import replace

from kickwatch.model import AlarmKind, Condition
from kickwatch.outlets import changes
from kickwatch.report import status_words as words
from watched_status import OLD, PROGRESS, STATUS

RUNNING = replace(PROGRESS, trial_since_s=3.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quiet; trial 3: churn window", "trial 3: churn window"),
        ("unknown; trial 3: churn window", "trial 3: churn window"),  # the condition has changed since
        ("budget: 46 of 60; the rest", "budget: 46 of 60; the rest"),
        ("between two trials", "between two trials"),
    ],
)
def test_the_condition_is_not_said_twice(line: str, said: str) -> None:
    assert words.doing(replace(STATUS, doing=line, progress=RUNNING)) == said


def test_a_trial_that_has_ended_is_not_shown_as_running() -> None:
    ended = replace(STATUS, doing="quiet; trial 3: churn window")
    assert words.doing(ended) == "a trial has ended"
    assert words.doing(OLD) == "trial 3: churn window, 23 containers"


@pytest.mark.parametrize("condition", Condition)
def test_every_condition_has_a_meaning(condition: Condition) -> None:
    assert words.meaning(condition)


def test_words_of_a_later_version_are_shown_as_they_are() -> None:
    assert words.reason("some_new_reason") == "some new reason"
    assert words.alerts(replace(STATUS, alerts={"new": ("x",)})) == ["new (x)"]


def test_each_alarm_leads_to_its_event() -> None:
    assert words._EVENTS.keys() == set(AlarmKind)
    for alarm, (raised, _, _) in changes._EVENTS.items():
        status = replace(STATUS, alerts={alarm.value: ("x",)})
        assert words.next_step(status) == f"next: journalctl -x KICKWATCH_EVENT={raised.value} -n 1"
    assert words.next_step(STATUS) == ""


def test_one_is_not_many() -> None:
    assert (words.many(1, "trial"), words.many(0, "trial"), words.many(2, "trial")) == (
        "1 trial",
        "0 trials",
        "2 trials",
    )
