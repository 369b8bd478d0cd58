"""One fault, one alarm, one recovery."""

# ruff: noqa: S311 - random numbers of a study, no secrets

from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Ceiling, Hysteresis, SavedWatched, Watched
from kickwatch.detect.simulate.laws import draws, poisson
from kickwatch.detect.wager import Null, Wager


def watch() -> Hysteresis:
    return Hysteresis(EDetector(Wager(Null(0.05, 4.0)), 5.3e8))


def run(test: Hysteresis, state: Watched, x: float, times: int) -> list[Watched]:
    states = [state]
    for _ in range(times):
        states.append(test.step(states[-1], x))
    return states


def changes(states: list[Watched]) -> int:
    return sum(before.alerted is not after.alerted for before, after in pairwise(states))


@pytest.mark.parametrize("faulty", [10, 1000])
def test_a_fault_that_comes_and_goes_is_one_alarm_and_one_recovery(faulty: int) -> None:
    test = watch()
    states = run(test, test.start(), 0.0, 200)
    states += run(test, states[-1], 3.0, faulty)[1:]
    assert states[-1].alerted
    after = run(test, states[-1], 0.0, 60)
    assert not after[-1].alerted
    assert changes(states + after[1:] + run(test, after[-1], 0.0, 5000)[1:]) == 2


def test_a_few_zeros_are_no_recovery() -> None:
    test = watch()
    alerted = run(test, test.start(), 3.0, 10)[-1]
    assert alerted.alerted
    assert run(test, alerted, 0.0, 30)[-1].alerted


def test_every_new_fault_raises_the_alarm_again() -> None:
    test = watch()
    state, count = test.start(), 0
    for _ in range(20):
        for x, times in ((3.0, 12), (0.0, 60)):
            states = run(test, state, x, times)
            count += changes(states)
            state = states[-1]
    assert count == 40


@pytest.mark.parametrize("mean", [0.08, 0.12, 0.2, 0.5])
def test_a_constant_fault_does_not_flap(mean: float) -> None:
    test = watch()
    source = draws(poisson(mean), Random(5))
    states = [test.start()]
    for _ in range(30_000):
        states.append(test.step(states[-1], next(source)))
    assert changes(states) == 1


def test_a_weak_fault_takes_longer_to_recover_from() -> None:
    test = watch()
    state = test.start()
    source = draws(poisson(0.1), Random(5))
    while not state.alerted:
        state = test.step(state, next(source))
    assert state.weak
    assert run(test, state, 0.0, 100)[-1].alerted
    assert not run(test, state, 0.0, 500)[-1].alerted


@given(st.lists(st.sampled_from([0.0] * 20 + [1.0, 4.0, 4.0, 4.0]), max_size=200))
@settings(deadline=None)
def test_scan_is_step_bit_for_bit(xs: list[float]) -> None:
    test = Hysteresis(EDetector(Wager(Null(0.05, 4.0)), 1e3))
    stepped = scanned = test.start()
    for x in xs:
        stepped = test.step(stepped, x)
    at = 0
    while at < len(xs):
        before = scanned.alerted
        scanned, used = test.scan(scanned, xs[at:])
        at += used
        assert at == len(xs) or scanned.alerted is not before
    assert scanned == stepped


@pytest.mark.parametrize("at", [3, 8, 30])
def test_a_restart_changes_nothing(at: int) -> None:
    test = watch()
    straight = broken = test.start()
    for i, x in enumerate([0.0] * 3 + [3.0] * 10 + [0.0] * 60):
        straight, broken = test.step(straight, x), test.step(broken, x)
        if i == at:
            broken = watch().restore(msgspec.json.decode(msgspec.json.encode(test.save(broken)), type=SavedWatched))
        assert broken == straight
    assert not straight.alerted


def test_a_ceiling_can_be_given() -> None:
    test = Hysteresis(EDetector(Wager(Null(20.0, 64.0)), 1e6), Ceiling(20.0, 64.0), Ceiling(20.0, 64.0))
    alerted = run(test, test.start(), 40.0, 100)[-1]
    assert alerted.alerted
    assert run(test, alerted, 40.0, 1000)[-1].alerted
    assert not run(test, alerted, 16.0, 300)[-1].alerted
