"""The swap test: a trial is worth one bit."""

import pytest

from kickwatch.detect.recovery import Watched
from kickwatch.detect.swap import SwapTest


def after(test: SwapTest, trials: list[tuple[float, float]], state: Watched | None = None) -> Watched:
    state = state or test.start()
    for churn, quiet in trials:
        state = test.step(state, churn, quiet)
    return state


def test_it_takes_29_trials() -> None:
    test = SwapTest(5.3e8)
    assert not after(test, [(1.0, 0.0)] * 28).alerted
    assert after(test, [(1.0, 0.0)] * 29).alerted


def test_the_size_of_the_difference_does_not_matter() -> None:
    assert not after(SwapTest(5.3e8), [(1000.0, 0.0)] * 28).alerted


def test_ties_are_no_toss() -> None:
    test = SwapTest(5.3e8)
    assert after(test, [(2.0, 2.0)] * 1000) == test.start()
    assert after(test, [(1.0, 0.0), (3.0, 3.0)] * 28 + [(1.0, 0.0)]).alerted


def test_more_in_quiet_windows_is_no_alarm() -> None:
    assert not after(SwapTest(5.3e8), [(0.0, 1.0)] * 500).alerted


def test_a_fault_that_is_hidden_now_and_then_is_found_later() -> None:
    trials = ([(5.0, 2.0)] * 9 + [(2.0, 5.0)]) * 8
    assert after(SwapTest(5.3e8), trials).alerted


def test_ties_after_the_alarm_are_recovery() -> None:
    test = SwapTest(5.3e8)
    state = after(test, [(1.0, 0.0)] * 40)
    assert after(test, [(1.0, 0.0)] * 500, state).alerted
    assert not after(test, [(0.0, 0.0)] * 60, state).alerted


def test_windows_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="compared"):
        SwapTest(5.3e8).step(SwapTest(5.3e8).start(), float("nan"), 1.0)
