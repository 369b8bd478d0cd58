"""The length of a half follows the latest lives."""

import pytest

from kickwatch.experiment.half_length import SETTLE_S, HalfLength


def after(lives_s: list[float], expected_s: float = 0.3, least_s: float = 0.0) -> float:
    length = HalfLength(expected_s, least_s)
    for life_s in lives_s:
        length.add(life_s)
    return length.seconds() - SETTLE_S


def test_until_some_lives_are_known_one_that_is_slow_is_not_followed() -> None:
    assert after([]) == pytest.approx(0.3)
    assert after([0.1, 0.1, 0.1]) == pytest.approx(0.3)
    assert after([40.0]) == pytest.approx(0.3)
    assert after([0.1, 40.0, 0.1]) == pytest.approx(0.3)
    assert after([0.5, 0.6, 0.7]) == pytest.approx(0.5)


def test_then_it_is_the_second_longest_of_the_latest() -> None:
    assert after([0.1, 0.2, 0.9, 0.2]) == pytest.approx(0.2)
    assert after([0.9, 0.8] + [0.2] * 7) == pytest.approx(0.2)
    assert after([0.2] * 8 + [0.9, 0.8]) == pytest.approx(0.8)


def test_it_has_a_least_length() -> None:
    assert after([0.1] * 8, least_s=0.4 + SETTLE_S) == pytest.approx(0.4)
