"""E-detectors: under the null the sum minus the time does not grow; delays are as promised."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.swap import FAIR_COIN
from kickwatch.detect.wager import Null, SavedWealth, Wager, Wealth

THRESHOLD = 5.3e8
EDGES = (  # a wager, and a law at the edge of its null
    (Wager(Null(0.05, 4.0)), {0.0: 1 - Fraction(0.05) / 4, 4.0: Fraction(0.05) / 4}),
    (Wager(Null(0.05, 4.0)), {0.0: 1 - Fraction(0.05), 1.0: Fraction(0.05)}),
    (Wager(Null(0.001, 64.0)), {0.0: 1 - Fraction(0.001) / 64, 64.0: Fraction(0.001) / 64}),
    (FAIR_COIN, {0.0: Fraction(1, 2), 1.0: Fraction(1, 2)}),
)
observations = st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 5, 0.5]), max_size=80)


def worth(wealth: Wealth) -> Fraction:
    return sum((Fraction(value) for value in wealth.values), Fraction(0))


@pytest.mark.parametrize(("wager", "law"), EDGES)
@given(start=st.lists(st.sampled_from([0.0, 1.0, 4.0]), max_size=6))
@settings(max_examples=30, deadline=None)
def test_one_step_adds_at_most_one_on_average(wager: Wager, law: dict[float, Fraction], start: list[float]) -> None:
    detector = EDetector(wager, THRESHOLD)
    wealth = detector.start()
    for x in start:
        wealth = detector.step(wealth, x)
    mean = sum((mass * worth(detector.step(wealth, x)) for x, mass in law.items()), Fraction(0))
    assert mean <= worth(wealth) + 1


def containers_until_alarm(null: Null, x: float, threshold: float = THRESHOLD) -> int:
    detector = EDetector(Wager(null), threshold)
    wealth, used = detector.start(), 0
    while not detector.alarmed(wealth):
        wealth, used = detector.step(wealth, x), used + 1
    return used


@pytest.mark.parametrize(
    ("null", "x", "most"),
    [
        (Null(0.05, 4.0), 1.0, 9),
        (Null(0.05, 4.0), 3.0, 8),
        (Null(0.05, 4.0), 5.0, 6),  # the canary under the fault of 2017
        (Null(0.001, 64.0), 32.0, 3),
        (Null(0.001, 64.0), 1.0, 4),
    ],
)
def test_the_promised_delays(null: Null, x: float, most: int) -> None:
    assert containers_until_alarm(null, x) <= most


def test_one_observation_alone_never_alarms() -> None:
    assert containers_until_alarm(Null(0.001, 64.0), 1e9) >= 2
    assert containers_until_alarm(Null(0.05, 4.0), 1e9) >= 5


def test_zeros_before_the_fault_never_delay_the_alarm() -> None:
    detector = EDetector(Wager(Null(0.05, 4.0)), THRESHOLD)
    wealth = detector.start()
    for _ in range(10_000):
        wealth = detector.step(wealth, 0.0)
    for _ in range(8):
        wealth = detector.step(wealth, 1.0)
    assert detector.alarmed(wealth)


@settings(deadline=None)
@given(observations, st.sampled_from([1e2, 1e4, 1e9]))
def test_scan_is_step_bit_for_bit(xs: list[float], threshold: float) -> None:
    detector = EDetector(Wager(Null(0.05, 4.0)), threshold)
    stepped = detector.start()
    for x in xs:
        stepped = detector.step(stepped, x)
        if detector.alarmed(stepped):
            break
    scanned, alarmed = detector.scan(detector.start(), xs)
    assert scanned == stepped
    assert alarmed == detector.alarmed(stepped)


@settings(deadline=None)
@given(observations, observations)
def test_restart_in_mid_evidence_changes_nothing(before: list[float], after: list[float]) -> None:
    detector = EDetector(Wager(Null(0.05, 4.0)), THRESHOLD)
    wealth, _ = detector.scan(detector.start(), before)
    saved = msgspec.json.encode(detector.wager.save(wealth))
    again = EDetector(Wager(Null(0.05, 4.0)), THRESHOLD)
    restored = again.wager.restore(msgspec.json.decode(saved, type=SavedWealth))
    assert again.scan(restored, after) == detector.scan(wealth, after)


@settings(deadline=None)
@given(observations, st.integers(0, 79))
def test_monotone_in_every_observation(xs: list[float], at: int) -> None:
    detector = EDetector(Wager(Null(0.05, 4.0)), THRESHOLD)
    wealth = raised = detector.start()
    for i, x in enumerate(xs):
        wealth, raised = detector.step(wealth, x), detector.step(raised, x + 1 if i == at else x)
    assert detector.evidence(wealth).rank <= detector.evidence(raised).rank


def test_it_runs_on_beyond_every_double() -> None:
    detector = EDetector(Wager(Null(0.05, 4.0)), THRESHOLD)
    wealth = detector.start()
    for _ in range(5000):
        wealth = detector.step(wealth, 4.0)
    assert detector.alarmed(wealth)
    assert str(detector.evidence(wealth)) == "over 1e300"
    with pytest.raises(ValueError, match="start it again"):
        detector.scan(wealth, [0.0])


@pytest.mark.parametrize("threshold", [0.0, 0.5, float("nan"), float("inf")])
def test_a_threshold_without_sense_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        EDetector(Wager(Null(0.05, 4.0)), threshold)


@given(st.lists(st.integers(0, 700), max_size=6))
def test_step_zeros_is_a_scan_of_zeros_bit_for_bit(runs: list[int]) -> None:
    wager = Wager(Null(0.05, 4.0))
    short, long = EDetector(wager, 5.3e8), EDetector(wager, 5.3e8)
    stepped, scanned = short.start(), long.start()
    for run in runs:
        stepped, alarmed = short.step_zeros(stepped, run)
        scanned, _ = long.scan(scanned, [0.0] * run)
        assert stepped == scanned
        assert not alarmed
        stepped, scanned = short.step(stepped, 1.0), long.step(scanned, 1.0)


def test_many_zeros_cost_no_time() -> None:
    test = EDetector(Wager(Null(0.05, 4.0)), 5.3e8)
    wealth = test.start()
    for _ in range(10_000):
        wealth, _ = test.step_zeros(wealth, 1)
    rest, _ = test.step_zeros(wealth, 10**12)
    assert rest.steps == 10**12 + 10_000
    assert rest.values == wealth.values
