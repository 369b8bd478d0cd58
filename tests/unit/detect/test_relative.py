"""This node against its own record: a doubling is found, a short record raises no false alarm."""

# ruff: noqa: S311 - random numbers of a study, no secrets

from itertools import islice
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect.relative import BURN_IN, Reference, all_zero, null_of, relative_rule
from kickwatch.detect.simulate.nulls import overdispersed


def record(observations: list[float]) -> Reference:
    reference = Reference()
    for x in observations:
        reference = reference.with_observation(x)
    return reference


def requests(mean: float, count: int, seed: int) -> list[float]:
    return list(islice(overdispersed(mean)(Random(seed)), count))


@pytest.mark.parametrize(("mean", "known", "most"), [(16.0, 500, 130), (100.0, 500, 110), (16.0, 2000, 90)])
def test_a_doubling_across_a_kernel_update_is_found(mean: float, known: int, most: int) -> None:
    rule = relative_rule(record(requests(mean, known, 1)), 5.3e8)
    assert rule is not None
    state = rule.start()
    for x in requests(2.0 * mean, most, 2):
        state = rule.step(state, x)
    assert state.alerted


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.15])
def test_a_cost_that_stays_or_changes_little_is_not(factor: float) -> None:
    rule = relative_rule(record(requests(16.0, 1000, 3)), 5.3e8)
    assert rule is not None
    state = rule.start()
    for x in requests(16.0 * factor, 20_000, 4):
        state = rule.step(state, x)
    assert not state.alerted


def test_a_record_that_is_too_short_gives_no_rule() -> None:
    assert relative_rule(record([]), 5.3e8) is None
    assert relative_rule(record(requests(16.0, BURN_IN, 1)), 5.3e8) is None
    assert relative_rule(record(requests(16.0, BURN_IN + 8, 1)), 5.3e8) is None


def test_the_bound_holds_as_often_as_it_says() -> None:
    low = 0
    for seed in range(200):
        bound = record(requests(5.0, 150, seed)).upper_bound(alpha=0.05)
        low += bound is not None and bound < 5.0
    assert low <= 10  # at most 5 % of 200; such bounds are cautious


def test_a_longer_record_and_a_larger_error_give_a_lower_bound() -> None:
    short, long = record(requests(16.0, 300, 1)), record(requests(16.0, 3000, 1))
    bounds = [short.upper_bound(1e-7), short.upper_bound(1e-2), long.upper_bound(1e-2)]
    assert bounds == sorted((bound for bound in bounds if bound is not None), reverse=True)
    assert bounds[-1] is not None
    assert 16.0 < bounds[-1] < 17.5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 500.0), min_size=BURN_IN + 1, max_size=BURN_IN + 40))
def test_observations_are_rounded_up_by_less_than_a_bin(observations: list[float]) -> None:
    reference = record(observations)
    kept = [min(x, reference.clip) for x in observations[BURN_IN:]]
    counted = sum(count * bin_ * reference.width for bin_, count in enumerate(reference.counts))
    assert reference.observations == len(kept)
    assert -1e-9 <= counted - sum(kept) < len(kept) * reference.width + 1e-9


def test_whole_numbers_are_kept_exactly() -> None:
    reference = record([7.0] * BURN_IN + [0.0, 1.0, 7.0, 20.0])
    assert sum(count * bin_ * reference.width for bin_, count in enumerate(reference.counts)) == 28.0


def test_a_record_survives_json() -> None:
    reference = record(requests(16.3, 100, 1))
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference


@pytest.mark.parametrize("x", [-1.0, float("nan")])
def test_an_impossible_observation_is_refused(x: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Reference().with_observation(x)


@given(st.lists(st.floats(0.0, 500.0), max_size=BURN_IN + 40), st.integers(0, BURN_IN + 40))
def test_many_at_once_are_equal_to_one_by_one(observations: list[float], at: int) -> None:
    halves = Reference().with_observations(observations[:at]).with_observations(observations[at:])
    assert halves == record(observations)


@pytest.mark.parametrize("count", [0, 1, BURN_IN - 1, BURN_IN, BURN_IN + 1, 500])
def test_a_cell_that_never_occurred_has_a_record_of_zeros(count: int) -> None:
    assert all_zero(count) == record([0.0] * count)
    assert all_zero(count).mean == 0.0


def test_the_mean_is_read_from_the_record() -> None:
    assert record([7.0] * BURN_IN + [4.0, 8.0]).mean == 6.0


def test_a_null_is_never_stricter_than_the_least() -> None:
    null = null_of(all_zero(10_000), least=0.25)
    assert null is not None
    assert null.mean == 0.25
    assert null_of(all_zero(40), least=0.25) is None
    assert null_of(all_zero(10_000), least=3.5) is None
