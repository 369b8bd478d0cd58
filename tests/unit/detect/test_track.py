"""A detector at work: its turns, their explanation, and no difference between one trial and many."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.detect import track as tracks
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Hysteresis
from kickwatch.detect.track import Given, Onset, Track, Turn, advance, is_calm, start, step_zeros
from kickwatch.detect.wager import Null, Wager


def watch(threshold: float = 5.3e8) -> Hysteresis:
    return Hysteresis(EDetector(Wager(Null(0.05, 4.0)), threshold))


def fed(test: Hysteresis, track: Track, *trials: tuple[float, ...], may_end: bool = True) -> tuple[Track, list[Turn]]:
    turns: list[Turn] = []
    for number, xs in enumerate(trials):
        track, turned = advance(test, track, Given(f"t{number}", xs, may_end=may_end))
        turns += turned
    return track, turns


def test_an_alarm_has_the_observations_since_its_onset() -> None:
    test = watch()
    _, (turn,) = fed(test, start(test), (0.0,) * 40, (0.0, 0.0, 1.0, 1.0, 1.0), (1.0,) * 20)
    assert turn.raised
    assert turn.onset == Onset("t1", 8, 8, 8.0)
    assert turn.threshold == 5.3e8


def test_an_onset_is_forgotten_when_its_evidence_is_back_at_rest() -> None:
    test = watch()
    track, turns = fed(test, start(test), (1.0,), (0.0,) * 30)
    assert track.onset is None
    assert not turns
    _, (turn,) = fed(test, track, *[(1.0,)] * 9)
    assert turn.onset.trial == "t0"
    assert turn.onset.observations == turn.onset.hits == 8


def test_an_onset_counts_the_observations_between_its_hits() -> None:
    test = watch()
    _, turns = fed(test, start(test), *[(1.0, 0.0, 3.0)] * 10)
    assert turns[0].onset.observations > turns[0].onset.hits
    assert turns[0].onset.total == pytest.approx(turns[0].onset.hits * 2, abs=2)


def test_alarm_and_recovery_may_be_in_one_trial() -> None:
    test = watch()
    track, turns = fed(test, start(test), (3.0,) * 6 + (0.0,) * 50)
    assert [turn.raised for turn in turns] == [True, False]
    assert turns[1].recovered_in == 37
    assert turns[1].since_hit == 37
    assert track.since_hit == 50
    assert track.onset is None


def test_zeros_that_cannot_be_trusted_end_no_alarm() -> None:
    test = watch()
    track, turns = fed(test, start(test), (3.0,) * 6 + (0.0,) * 500, may_end=False)
    assert [turn.raised for turn in turns] == [True]
    track, turns = fed(test, track, (0.0,) * 500, may_end=False)
    assert not turns
    assert track.watched.alerted
    assert fed(test, track, (0.0,) * 37)[1][0].raised is False


def test_the_longest_wait_is_kept_with_the_onset() -> None:
    test = watch()
    track = start(test)
    for number, longest in enumerate((5, 9, 7)):
        track, _ = advance(test, track, Given(f"t{number}", (1.0,), longest_wait_ns=longest))
    assert track.onset is not None
    assert track.onset.longest_wait_ns == 9


observations = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 3.0]), max_size=60)


@settings(max_examples=60)
@given(observations, st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_it_does_not_matter_how_observations_are_cut_into_trials(xs: list[float], sizes: list[int]) -> None:
    test = watch(1e4)
    whole, alone = start(test), start(test)
    at, turns, single = 0, 0, 0
    while at < len(xs):
        size = sizes[at % len(sizes)]
        whole, turned = advance(test, whole, Given("t", tuple(xs[at : at + size])))
        turns += len(turned)
        at += size
    for x in xs:
        alone, turned = advance(test, alone, Given("t", (x,)))
        single += len(turned)
    assert (whole.watched, whole.since_hit, turns) == (alone.watched, alone.since_hit, single)


@given(st.integers(1, 40), st.integers(0, 3000))
def test_step_zeros_is_advance_through_zeros(zeros: int, before: int) -> None:
    test, other = watch(), watch()
    track = step_zeros(other, start(test), before)
    assert is_calm(track)
    assert step_zeros(test, track, zeros) == advance(other, track, Given("t", (0.0,) * zeros))[0]


def test_a_stream_with_an_onset_or_an_alarm_is_not_calm() -> None:
    test = watch()
    begun, _ = advance(test, start(test), Given("t", (1.0,)))
    alerted, _ = advance(test, begun, Given("t", (4.0,) * 9))
    assert not is_calm(begun)
    assert not is_calm(alerted)


@given(observations)
def test_a_state_survives_saving(xs: list[float]) -> None:
    test = watch(1e3)
    track, _ = advance(test, start(test), Given("t", tuple(xs)))
    assert tracks.restore(test, tracks.save(test, track)) == track
