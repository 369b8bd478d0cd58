"""The length of a half follows the latest lives."""

import pytest

from kickwatch.experiment.half_length import HalfLength, half_of


def after(lives_s: list[float], expected_s: float = 0.3, least_s: float = 0.0) -> float:
    length = HalfLength(expected_s, least_s)
    for life_s in lives_s:
        length.add(life_s)
    return length.seconds()


def test_a_half_is_longer_than_a_life() -> None:
    assert half_of(0.3) == pytest.approx(0.38)


def test_until_some_lives_are_known_the_expected_one_counts() -> None:
    assert after([]) == pytest.approx(half_of(0.3))
    assert after([0.1, 0.1, 0.1]) == pytest.approx(half_of(0.2))  # the expected one is slow beside these
    assert after([0.5]) == pytest.approx(half_of(0.5))


def test_a_life_that_is_slow_beside_the_others_counts_as_twice_their_median() -> None:
    assert after([40.0]) == pytest.approx(half_of(0.6))
    assert after([0.1, 40.0, 0.1, 0.1]) == pytest.approx(half_of(0.2))
    assert after([0.2] * 7 + [40.0]) == pytest.approx(half_of(0.4))


def test_it_is_the_longest_of_the_latest_lives() -> None:
    assert after([0.2, 0.25, 0.3, 0.25]) == pytest.approx(half_of(0.3))
    assert after([0.9] + [0.2] * 8) == pytest.approx(half_of(0.2))
    assert after([0.2] * 4 + [0.9] * 8) == pytest.approx(half_of(0.9))


def test_it_has_a_least_length() -> None:
    assert after([0.1] * 8, least_s=0.4) == pytest.approx(0.4)
