"""Numbers beyond a double: equal to exact fractions except for the last bit."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.detect.scaled import Scaled, add_up, power, stake_and_multiply

mantissas = st.floats(min_value=2.0**-500, max_value=2.0**500)
powers = st.integers(min_value=-5000, max_value=5000)
stakes = st.just(0.0) | st.floats(min_value=2.0**-500, max_value=1.0)  # no stake is a double with fewer digits


def exact(value: float, exponent: int) -> Fraction:
    return Fraction(value) * Fraction(2) ** exponent


@given(st.lists(st.tuples(mantissas, powers), min_size=1, max_size=9))
def test_add_up_is_the_exact_sum_except_for_rounding(terms: list[tuple[float, int]]) -> None:
    total = add_up([value for value, _ in terms], [exponent for _, exponent in terms])
    whole = sum(exact(*term) for term in terms)
    assert abs(exact(total.mantissa, total.exponent) / whole - 1) < Fraction(1, 2**49)
    assert 0.5 <= total.mantissa < 1.0


@given(mantissas, powers, stakes, st.floats(min_value=1e-3, max_value=1e5))
def test_a_stake_and_a_factor_are_exact_except_for_rounding(
    value: float, exponent: int, stake: float, factor: float
) -> None:
    whole = (exact(value, exponent) + Fraction(stake)) * Fraction(factor)
    after = exact(*stake_and_multiply(value, exponent, stake, factor))
    assert abs(after / whole - 1) < Fraction(1, 2**51)


@given(mantissas, powers, mantissas, powers)
def test_rank_orders_by_value(a: float, i: int, b: float, j: int) -> None:
    one, other = add_up((a,), (i,)), add_up((b,), (j,))
    assert (one.rank < other.rank) == (exact(a, i) < exact(b, j))


@given(st.floats(min_value=1e-3, max_value=1e3), st.integers(min_value=0, max_value=3000))
def test_power_is_the_exact_power_except_for_rounding(factor: float, count: int) -> None:
    result = power(factor, count)
    assert abs(exact(result.mantissa, result.exponent) / Fraction(factor) ** count - 1) < Fraction(1, 2**38)


def test_zero_stays_zero() -> None:
    assert add_up((0.0, 0.0), (7, -7)) == Scaled(0.0, 0)
    assert stake_and_multiply(0.5, 900, 0.0, 0.0) == (0.0, 0)
    assert power(0.0, 3) == Scaled(0.0, 0)
    assert not Scaled(0.0, 0).reaches(1e-300)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (Scaled(0.0, 0), "0"),
        (add_up((0.42,), (0,)), "0.42"),
        (add_up((999.0,), (0,)), "999"),
        (add_up((3.1e9,), (0,)), "3.1e9"),
        (add_up((2e-7,), (0,)), "2.0e-7"),
        (Scaled(0.5, 9000), "over 1e300"),
        (Scaled(0.5, -9000), "below 1e-300"),
    ],
)
def test_numbers_are_written_for_people(number: Scaled, words: str) -> None:
    assert str(number) == words


def test_capped_never_overflows() -> None:
    assert Scaled(0.75, 20_000).capped(1e15) == 1e15
    assert Scaled(0.75, 1).capped(1e15) == 1.5
    assert Scaled(0.75, -20_000).capped(1e15) == 0.0


def test_the_mean_of_two() -> None:
    assert add_up((3.0,), (0,)).mean_with(add_up((5.0,), (0,))) == add_up((4.0,), (0,))
