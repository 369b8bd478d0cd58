"""Pairs of halves: what is observed, and bets whose money no coin and no allowed difference can make grow."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.detect.pair_detector import PairDetector
from kickwatch.detect.pairs import (
    DIFFERENT_SHARE,
    LARGEST_DIFFERENCE,
    PAIR_BETS,
    PairWager,
    clipped_excess,
    differences,
)
from kickwatch.detect.wager import HIGHEST, NINE, NOTHING, PART, SPREAD, Null, StaleStateError, Wager, Wealth
from kickwatch.model import HalfFigures
from watching import pair

WAGER, THRESHOLD = PairWager(), 4.1e8
SIZES = st.integers(0, 50)
TRIALS = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=40).map(tuple)


def elsewhere(half: HalfFigures) -> int | None:
    return half.elsewhere


# --- observations


def test_a_difference_is_churn_minus_quiet() -> None:
    assert differences([pair(3, 1), pair(0, 2), pair(4, 4)], elsewhere) == (2.0, -2.0, 0.0)


def test_a_pair_with_an_unknown_half_is_no_observation() -> None:
    assert differences([pair(None, 0), pair(2, None), pair(1, 0)], elsewhere) == (1.0,)


def test_a_pair_that_was_outlasted_may_lose_or_tie_but_not_win() -> None:
    pairs = [pair(3, 0, outlasted=True), pair(0, 3, outlasted=True), pair(0, 0, outlasted=True)]
    assert differences(pairs, elsewhere) == (0.0, -3.0, 0.0)


def test_pairs_that_were_outlasted_must_not_be_left_out() -> None:
    """Lives are slow in calm times, and half of each pair is busy: of the pairs that are left, churn wins every one."""
    busy, calm = pair(6, 0), pair(0, 6, outlasted=True)
    assert differences([busy, calm] * 9, elsewhere) == (6.0, -6.0) * 9
    kept = [one for one in [busy, calm] * 40 if not one.outlasted]
    assert PairDetector(THRESHOLD).scan(Wealth(0, NOTHING), differences(kept, elsewhere))[1]
    assert not PairDetector(THRESHOLD).scan(Wealth(0, NOTHING), differences([busy, calm] * 40, elsewhere))[1]


def test_each_further_container_of_a_burst_is_a_tie() -> None:
    assert differences([pair(9, 0, containers=4), pair(1, 0)], elsewhere) == (9.0, 1.0, 0.0, 0.0, 0.0)
    assert differences([pair(9, 0, containers=0)], elsewhere) == (9.0,)  # it failed


def test_the_excess_is_clipped_by_what_a_container_counts_for() -> None:
    assert clipped_excess([pair(20, 0), pair(0, 1)], elsewhere) == (2.0, 20)
    assert clipped_excess([pair(20, 0, containers=4), pair(0, 30)], elsewhere) == (9.0, 20)
    assert clipped_excess([pair(20, 0), pair(None, 0)], elsewhere) is None
    assert clipped_excess([], elsewhere) is None


# --- the bets


def exact(x: int) -> list[Fraction]:
    """The factors as they are, rounding included."""
    return [Fraction(factor) for factor in WAGER.factors(float(x))]


@given(SIZES)
def test_a_fair_coin_takes_money_from_every_bet(size: int) -> None:
    for won, lost in zip(exact(size), exact(-size), strict=True):
        assert (won + lost) / 2 < 1 - Fraction(1, 2**41)


@given(st.lists(st.tuples(SIZES, st.integers(-50, 50)), min_size=1, max_size=5))
def test_money_has_a_mean_of_at_most_one_under_the_null(pairs: list[tuple[int, int]]) -> None:
    """All outcomes of the coins, and of which containers make a difference: as large a one as may be."""
    share = Fraction(1, 20)
    mean = [Fraction(0)] * NINE
    for outcome in product(range(3), repeat=len(pairs)):
        weight, money = Fraction(1), [Fraction(1)] * NINE
        for toss, (size, different) in zip(outcome, pairs, strict=True):
            weight *= (share, (1 - share) / 2, (1 - share) / 2)[toss]
            money = [m * f for m, f in zip(money, exact((max(different, 3), size, -size)[toss]), strict=True)]
        mean = [before + weight * m for before, m in zip(mean, money, strict=True)]
    assert max(mean) <= 1


@given(st.integers(2, 12), SIZES)
def test_a_burst_with_its_ties_has_a_mean_of_at_most_one(containers: int, size: int) -> None:
    """Any of its containers may make the difference."""
    share = min(Fraction(1), containers * Fraction(1, 20))
    for won, lost, most, tie in zip(exact(size), exact(-size), exact(3), exact(0), strict=True):
        assert ((1 - share) * (won + lost) / 2 + share * most) * tie ** (containers - 1) <= 1


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_a_larger_difference_never_has_a_smaller_factor(one: int, other: int) -> None:
    """So to set a win to a tie can only lower the money."""
    low, high = sorted((one, other))
    assert all(a <= b for a, b in zip(exact(low), exact(high), strict=True))


def test_a_factor_is_that_of_the_page() -> None:
    stake = PAIR_BETS.parts[3] / PART
    ratio = (1 - stake) / (1 + stake)
    pulls = {size: (1 - ratio**size) / (1 + ratio**size) for size in range(4)}
    assert pulls[1] == pytest.approx(stake)
    for size in range(4):
        whole = 1 + DIFFERENT_SHARE * pulls[3]
        assert WAGER.factors(float(size))[3] == pytest.approx((1 + pulls[size]) / whole)
        assert WAGER.factors(float(-size))[3] == pytest.approx((1 - pulls[size]) / whole)
    assert WAGER.factors(1000.0) == WAGER.factors(float(LARGEST_DIFFERENCE))


@pytest.mark.parametrize("x", [0.5, -1.25, float("nan")])
def test_what_is_no_difference_of_counts_is_refused(x: float) -> None:
    with pytest.raises(ValueError, match=r"whole number|NaN"):
        WAGER.factors(x)


# --- a trial


def outcome(wealth: Wealth) -> Fraction:
    exponents = wealth.exponents or (0,) * NINE
    return sum((Fraction(v) * Fraction(2) ** e for v, e in zip(wealth.values, exponents, strict=True)), Fraction(0))


@given(TRIALS, TRIALS)
def test_a_trial_is_one_stake_and_the_product_of_its_factors(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    wealth, expected = Wealth(0, NOTHING), [Fraction(0)] * NINE
    for xs in (first, second):
        wealth = WAGER.step_trial(wealth, xs, WAGER.stakes)
        expected = [value + Fraction(stake) for value, stake in zip(expected, WAGER.stakes, strict=True)]
        for x in xs:
            expected = [value * Fraction(f) for value, f in zip(expected, WAGER.factors(x), strict=True)]
    assert wealth.steps == 2
    assert float(outcome(wealth) / sum(expected)) == pytest.approx(1.0, rel=1e-9)


@given(TRIALS)
def test_a_trial_of_several_pairs_is_several_of_one_without_a_stake(xs: tuple[float, ...]) -> None:
    start = Wealth(0, WAGER.stakes)
    one_by_one = start
    for x in xs:
        one_by_one = WAGER.step_trial(one_by_one, (x,))
    assert WAGER.step_trial(start, xs).values == one_by_one.values


@pytest.mark.parametrize("x", [3.0, -3.0])
def test_thousands_of_pairs_neither_overflow_nor_vanish(x: float) -> None:
    wealth = WAGER.step_trial(Wealth(0, WAGER.stakes), (x,) * 3000)
    assert wealth.total().reaches(HIGHEST) is (x > 0.0)
    assert wealth.total().mantissa > 0.0
    assert WAGER.restore(WAGER.save(wealth)) == wealth


def test_evidence_of_pairs_is_not_taken_for_that_of_a_mean() -> None:
    mean = Wager(Null(DIFFERENT_SHARE, 1.0), PAIR_BETS)
    saved = WAGER.save(Wealth(1, WAGER.stakes))
    assert WAGER.restore(saved) == Wealth(1, WAGER.stakes)
    for other in (mean, PairWager(0.1), PairWager(bets=SPREAD)):
        with pytest.raises(StaleStateError):
            other.restore(saved)
