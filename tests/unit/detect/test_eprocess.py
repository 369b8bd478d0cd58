"""The wager and its e-processes: supermartingales under every null, restored exactly, the same on any CPU."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect.eprocess import EpochEProcess, EProcess
from kickwatch.detect.oneshot import NONE_AT_ALL
from kickwatch.detect.recovery import CONFIDENT
from kickwatch.detect.wager import NOTHING, SPREAD, Bets, Null, SavedWealth, StaleStateError, Wager, Wealth

Law = dict[float, Fraction]

NULLS = (Null(0.05, 4.0), Null(0.001, 64.0), Null(0.5, 1.0), Null(2.0 / 3.0, 1.0), Null(20.0, 52.75))
observations = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 0.25, 4.0, 77.0]), max_size=60)


def worth(wealth: Wealth) -> Fraction:
    """All the money, exactly."""
    exponents = wealth.exponents or (0,) * 9
    return sum((Fraction(v) * Fraction(2) ** e for v, e in zip(wealth.values, exponents, strict=True)), Fraction(0))


@st.composite
def edge_laws(draw: st.DrawFn, null: Null) -> Law:
    """Two- and three-point laws on [0, clip] whose mean is exactly the null's."""
    mean, clip = Fraction(null.mean), null.clip
    high = draw(st.sampled_from([clip, clip / 2 if clip / 2 >= null.mean else clip]))
    low = draw(st.sampled_from([0.0, null.mean / 2]))
    weight = (mean - Fraction(low)) / (Fraction(high) - Fraction(low))
    at_mean = Fraction(draw(st.integers(0, 3)), 4)
    return {low: (1 - weight) * (1 - at_mean), high: weight * (1 - at_mean), null.mean: at_mean}


def expected(
    step: Callable[[Wealth, float], Wealth], wealth: Wealth, laws: list[Law], value: Callable[[Wealth], Fraction]
) -> Fraction:
    """The exact mean of `value` after as many observations as laws; the law of each depends on the one before."""
    if not laws:
        return value(wealth)
    total, rest = Fraction(0), laws[1:]
    for x, mass in laws[0].items():
        if mass:
            total += mass * expected(step, step(wealth, x), rest if x else rest[::-1], value)
    return total


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(NULLS), st.sampled_from([SPREAD, CONFIDENT, NONE_AT_ALL]))
def test_money_does_not_grow_on_average_under_the_null(data: st.DataObject, null: Null, bets: Bets) -> None:
    laws = [data.draw(edge_laws(null)) for _ in range(4)]
    process = EProcess(Wager(null, bets))
    assert worth(process.start()) == 1
    assert expected(process.step, process.start(), laws, worth) <= 1


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(NULLS))
def test_published_evidence_since_an_epoch_is_an_e_value(data: st.DataObject, null: Null) -> None:
    laws = [data.draw(edge_laws(null)) for _ in range(4)]
    process = EpochEProcess(Wager(null))

    def value(wealth: Wealth) -> Fraction:
        return worth(wealth) + Fraction(1, wealth.steps + 1)

    assert expected(process.step, process.start(), laws, value) <= 1


@settings(deadline=None)
@given(observations, st.sampled_from(NULLS))
def test_published_evidence_is_the_staked_part_and_the_rest(xs: list[float], null: Null) -> None:
    process = EpochEProcess(Wager(null), cap=50.0)
    wealth = process.start()
    for x in xs:
        wealth = process.step(wealth, x)
    exactly = worth(wealth) + Fraction(1, len(xs) + 1)
    assert process.published(wealth) == pytest.approx(float(min(exactly, Fraction(50))), rel=1e-12)


def test_an_epoch_of_zeros_costs_a_square_and_not_everything() -> None:
    process, plain = EpochEProcess(Wager(Null(0.05, 4.0))), EProcess(Wager(Null(0.05, 4.0)))
    pooled, alone = process.start(), plain.start()
    for _ in range(5000):
        pooled, alone = process.step(pooled, 0.0), plain.step(alone, 0.0)
    for _ in range(20):
        pooled, alone = process.step(pooled, 1.0), plain.step(alone, 1.0)
    assert process.published(pooled) > 1e9
    assert alone.total().capped(1e15) < 1e-30


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=40), st.sampled_from(NULLS))
def test_more_broadcasts_never_mean_less_evidence(pairs: list[tuple[float, float]], null: Null) -> None:
    process = EProcess(Wager(null))
    less, more = process.start(), process.start()
    for a, b in pairs:
        less, more = process.step(less, min(a, b)), process.step(more, max(a, b))
    assert less.total().rank <= more.total().rank


@settings(deadline=None)
@given(observations, st.integers(0, 60), st.sampled_from(NULLS))
def test_restored_evidence_continues_bit_for_bit(xs: list[float], at: int, null: Null) -> None:
    wager = Wager(null)
    process = EProcess(wager)
    straight = broken = process.start()
    for i, x in enumerate(xs):
        straight, broken = process.step(straight, x), process.step(broken, x)
        if i == at:
            written = msgspec.json.encode(wager.save(broken))
            broken = Wager(null).restore(msgspec.json.decode(written, type=SavedWealth))
    assert broken == straight
    assert [value.hex() for value in broken.values] == [value.hex() for value in straight.values]


def test_evidence_of_another_null_is_refused() -> None:
    saved = Wager(Null(0.05, 4.0)).save(EProcess(Wager(Null(0.05, 4.0))).start())
    for other in (Wager(Null(0.06, 4.0)), Wager(Null(0.05, 5.0)), Wager(Null(0.05, 4.0), CONFIDENT)):
        with pytest.raises(StaleStateError, match="start again"):
            other.restore(saved)


@pytest.mark.parametrize("x", [0.0, 4.0, 1.0])
def test_no_overflow_and_no_underflow_in_long_runs(x: float) -> None:
    process = EProcess(Wager(Null(0.05, 4.0)))
    wealth = process.start()
    for _ in range(3000):
        wealth = process.step(wealth, x)
    growth = [Fraction(64 - part, 64) + Fraction(part, 64) / Fraction(0.05) * Fraction(x) for part in SPREAD.parts]
    for value, exponent, factor, share in zip(
        wealth.values, wealth.exponents or (0,) * 9, growth, SPREAD.shares, strict=True
    ):
        whole = Fraction(share, 256) * factor**3000
        assert abs(Fraction(value) * Fraction(2) ** exponent / whole - 1) < Fraction(1, 10**7)


def test_wealth_beyond_doubles_comes_back() -> None:
    process = EProcess(Wager(Null(0.05, 4.0), CONFIDENT))
    wealth = process.start()
    for _ in range(2000):
        wealth = process.step(wealth, 1.0)
    assert wealth.exponents
    for _ in range(200_000):
        wealth = process.step(wealth, 0.0)
    assert wealth.steps == 202_000
    assert wealth.total().rank < process.start().total().rank


def test_a_golden_trajectory() -> None:
    """These bits must come out on every CPU and every Python; they were computed once, on x86-64."""
    process = EpochEProcess(Wager(Null(0.05, 4.0)))
    wealth, seen = process.start(), []
    for x in (0.0, 1.0, 0.0, 0.0, 2.5, 7.0, 0.0, 1.0):
        wealth = process.step(wealth, x)
        seen.append(process.published(wealth).hex())
    assert seen == GOLDEN_PUBLISHED
    assert [value.hex() for value in wealth.values] == GOLDEN_VALUES


GOLDEN_PUBLISHED = [
    "0x1.7940000000000p-1",
    "0x1.f159eaaaa9027p+1",
    "0x1.beaf4355540d3p+0",
    "0x1.175edbe5dd2a0p+0",
    "0x1.06bc977c3473cp+4",
    "0x1.31f265682da19p+9",
    "0x1.1760fa834d742p+8",
    "0x1.599e6b4724ee1p+11",
]
GOLDEN_VALUES = [
    "0x1.b2870b77bbc12p+4",
    "0x1.dacf21f0c22ddp+7",
    "0x1.302876c846223p+9",
    "0x1.2a5965332ec37p+10",
    "0x1.091d7ce150b45p+9",
    "0x1.1562b994c268bp+7",
    "0x1.8653d2b5e1803p+4",
    "0x1.1184949e523ebp+2",
    "0x1.f17cb419b68d2p-1",
]


@pytest.mark.parametrize("x", [-1.0, -1e-300, float("nan"), float("-inf")])
def test_an_impossible_observation_is_refused(x: float) -> None:
    process = EProcess(Wager(Null(0.05, 4.0)))
    with pytest.raises(ValueError, match="at least 0"):
        process.step(process.start(), x)


def test_infinity_is_clipped() -> None:
    wager = Wager(Null(0.05, 4.0))
    assert wager.factors(float("inf")) == wager.factors(4.0)


@pytest.mark.parametrize(("mean", "clip"), [(0.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1e-300, 1e300)])
def test_a_null_that_makes_no_sense_is_refused(mean: float, clip: float) -> None:
    with pytest.raises(ValueError, match="null"):
        Null(mean, clip)


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        ((61, 51, 42, 32, 22, 16, 8, 4), (256,) * 8),
        ((65, 51, 42, 32, 22, 16, 8, 4, 2), SPREAD.shares),
        ((0, 51, 42, 32, 22, 16, 8, 4, 2), SPREAD.shares),
        (SPREAD.parts, (48, 32, 32, 48, 32, 16, 16, 16, 17)),
    ],
)
def test_bets_that_make_no_sense_are_refused(parts: tuple[int, ...], shares: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"bets|bet is|shares"):
        Bets(parts, shares)


def test_the_cache_changes_nothing() -> None:
    crowded, fresh = Wager(Null(0.05, 4.0)), Wager(Null(0.05, 4.0))
    for i in range(1000):
        crowded.factors(i / 1000)
    assert crowded.factors(0.9995) == fresh.factors(0.9995)
    assert crowded.factors(1) == fresh.factors(1.0)


@given(st.lists(st.sampled_from([0.0, 1.0, 9.0]), min_size=1, max_size=4))
def test_a_trial_is_one_portion_and_a_bet_on_each_observation(xs: list[float]) -> None:
    process = EpochEProcess(Wager(Null(0.05, 4.0)))
    first, *later = xs
    wealth = process.step(process.start(), first)
    for x in later:
        wealth = process.wager.step(wealth, x)
    trial = process.step_trial(process.start(), tuple(xs))
    assert (trial.values, trial.steps) == (wealth.values, 1)


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(NULLS))
def test_published_evidence_of_trials_with_several_containers_is_an_e_value(data: st.DataObject, null: Null) -> None:
    laws = [data.draw(edge_laws(null)) for _ in range(4)]
    process = EpochEProcess(Wager(null))

    def two_trials(wealth: Wealth, x: float) -> Wealth:
        """Observations 1 and 2 are one trial, 3 and 4 the next: steps are counted by observation here."""
        first = wealth.steps % 2 == 0
        trial = wealth.steps // 2 + 1
        stakes = process._portion(trial) if first else NOTHING
        return process.wager.step(wealth, x, stakes)

    def value(wealth: Wealth) -> Fraction:
        return worth(wealth) + Fraction(1, wealth.steps // 2 + 1)

    assert expected(two_trials, process.start(), laws, value) <= 1


def test_one_trial_with_a_broadcast_per_container_is_enough_for_the_fleet() -> None:
    """The mean of the trial as a single bet was worth 10, so each node alarmed hours before the fleet did."""
    process = EpochEProcess(Wager(Null(0.05, 4.0)))
    assert process.published(process.step_trial(process.start(), (1.0,) * 23)) > 1e12


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 1.0])), max_size=6))
def test_step_zeros_is_that_many_steps_whatever_other_streams_did(runs: list[tuple[int, float]]) -> None:
    process, other = EpochEProcess(Wager(Null(0.05, 4.0))), EpochEProcess(Wager(Null(0.5, 4.0)))
    together = alone = elsewhere = process.start()
    for zeros, x in runs:
        elsewhere = other.step_zeros(elsewhere, zeros)
        together = process.step_zeros(together, zeros)
        for _ in range(zeros):
            alone = process.step(alone, 0.0)
        assert together == alone
        together, alone = process.step(together, x), process.step(alone, x)
