"""The test of a stream of pairs: a threshold counted in trials, recovery by trials, and no bit lost on the way."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.pair_detector import PairDetector, PairHysteresis, winner
from kickwatch.detect.pairs import PairWager
from kickwatch.detect.recovery import Watched
from kickwatch.detect.track import Given, Onset, advance, start, step_zeros
from kickwatch.detect.wager import NOTHING, Wealth

THRESHOLD = 4.1e8
TEST = PairHysteresis(THRESHOLD)
WINS, TIES = (1.0,) * 23, (0.0,) * 23
TRIALS = st.lists(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 3.0]), min_size=1, max_size=25).map(tuple), max_size=25
)


def after(*trials: tuple[float, ...], state: Watched | None = None) -> Watched:
    state = state or TEST.start()
    for trial in trials:
        state, used = TEST.scan(state, trial)
        assert used == len(trial)
    return state


# --- the alarm


def test_a_broadcast_with_each_container_takes_two_trials() -> None:
    assert not after(WINS).alerted
    assert after(WINS, WINS).alerted
    assert after((1.0,) * 34).alerted
    assert not after((1.0,) * 33).alerted


def test_a_trial_is_one_step_and_one_stake() -> None:
    state = after(WINS, TIES)
    assert state.alarm.steps == 2
    many = TEST.scan(TEST.start(), TIES * 40)[0].alarm
    assert sum(many.values) < 1e-3
    assert after(*[(0.0,)] * 1000).alarm.values > many.values


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_sum_has_a_mean_of_at_most_the_number_of_trials(trials: list[list[int]]) -> None:
    """Over all outcomes of the coins. So the mean number of trials to a false alarm is at least the threshold."""
    detector, total, outcomes = PairDetector(2.0**300), 0.0, 0
    for signs in product((1.0, -1.0), repeat=sum(map(len, trials))):
        sign, wealth = iter(signs), detector.start()
        for sizes in trials:
            wealth, _ = detector.scan(wealth, [size * next(sign) for size in sizes])
        total, outcomes = total + sum(wealth.values), outcomes + 1
    assert total / outcomes <= len(trials)


def test_more_without_containers_is_no_alarm() -> None:
    assert not after(*[(-1.0,) * 23] * 200).alerted


def test_a_container_in_20_that_makes_a_difference_is_no_alarm() -> None:
    assert not after(*[(3.0, *(0.0,) * 19)] * 2000).alerted
    assert after(*[(3.0, *(0.0,) * 5)] * 2000).alerted


# --- recovery


def test_14_trials_without_a_difference_end_the_alarm() -> None:
    alerted = after(WINS, WINS)
    assert after(*[TIES] * 13, state=alerted).alerted
    assert not after(*[TIES] * 14, state=alerted).alerted
    assert after(*[WINS] * 500, state=alerted).alerted


def test_a_trial_that_raises_the_alarm_is_no_recovery() -> None:
    raised = after(WINS, (*WINS, *(-3.0,) * 100))
    assert raised.alerted
    assert raised.recovery.steps == 0


def test_a_busy_half_decides_no_trial() -> None:
    assert winner((-20.0, 1.0, 1.0, 1.0, 1.0)) == 1.0
    assert winner((20.0, -1.0, -1.0, -1.0)) == 0.5
    assert winner((1.0, -2.0)) == 0.0
    assert after(*[(-20.0, *WINS)] * 500, state=after(WINS, WINS)).alerted


def test_the_end_of_an_alarm_counts_containers_and_trials() -> None:
    track, turns = start(TEST), []
    for number, trial in enumerate([TIES, (0.0, *WINS), WINS, *[TIES] * 14]):
        track, turned = advance(TEST, track, Given(f"t{number}", trial))
        turns += turned
    raised, ended = turns
    assert (raised.onset, raised.threshold) == (Onset("t1", 46, 46, 46.0), THRESHOLD)
    assert (ended.recovered_in, ended.since_hit) == (14, 14 * 23)


# --- to the last bit


@given(st.integers(1, 30), st.integers(0, 200), TRIALS)
def test_step_zeros_is_that_many_trials_of_ties(pairs: int, trials: int, before: list[tuple[float, ...]]) -> None:
    state = after(*before)
    alone = after(*[(0.0,) * pairs] * trials, state=state)
    assert TEST.step_zeros(state, pairs, trials) == (alone, pairs * trials)


@given(st.integers(1, 30), st.integers(1, 60))
def test_a_calm_track_may_step_through_ties_later(pairs: int, trials: int) -> None:
    together, alone = step_zeros(TEST, start(TEST), pairs, trials), start(TEST)
    for _ in range(trials):
        alone, _ = advance(TEST, alone, Given("t", (0.0,) * pairs))
    assert together == alone


@settings(max_examples=50)
@given(TRIALS, st.integers(0, 25))
def test_a_state_that_is_saved_continues_to_the_last_bit(trials: list[tuple[float, ...]], at: int) -> None:
    early, late = [WINS, WINS, *trials][:at], [WINS, WINS, *trials][at:]
    state = after(*early)
    restored = PairHysteresis(1e9).restore(TEST.save(state))
    assert restored == state
    assert after(*late, state=restored) == after(*early, *late)


# --- the e-process since an epoch


@given(TRIALS.filter(bool))
def test_the_e_process_stakes_in_portions_and_steps_by_trials(trials: list[tuple[float, ...]]) -> None:
    wager = PairWager()
    process, wealth, expected = EpochEProcess(wager), Wealth(0, NOTHING), [0.0] * 9
    for t, xs in enumerate(trials, 1):
        wealth = process.step_trial(wealth, xs)
        expected = [value + stake / (t * (t + 1)) for value, stake in zip(expected, wager.stakes, strict=True)]
        for x in xs:
            expected = [value * factor for value, factor in zip(expected, wager.factors(x), strict=True)]
    assert wealth.steps == len(trials)
    assert sum(wealth.values) == pytest.approx(sum(expected), rel=1e-9)


@given(st.integers(1, 3), st.integers(1, 30))
def test_its_trials_of_ties_may_be_added_together(pairs: int, trials: int) -> None:
    process = TEST.since_epoch()
    alone = process.start()
    for _ in range(trials):
        alone = process.step_trial(alone, (0.0,) * pairs)
    assert process.step_zeros(process.start(), trials, pairs) == alone
    assert process.step_zeros(process.start(), trials, pairs + 1) != alone


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3))
def test_its_mean_is_at_most_one(trials: list[list[int]]) -> None:
    process, total, outcomes = TEST.since_epoch(), 0.0, 0
    for signs in product((1.0, -1.0), repeat=sum(map(len, trials))):
        sign, wealth = iter(signs), process.start()
        for sizes in trials:
            wealth = process.step_trial(wealth, tuple(size * next(sign) for size in sizes))
        total, outcomes = total + process.published(wealth), outcomes + 1
    assert total / outcomes <= 1.0
