"""A state that is saved and restored gives the same verdicts after the same observations, to the last bit."""

import json
from itertools import islice

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kickwatch.detect.monitor import EPOCH_S, Monitor
from kickwatch.detect.persist import VERSION, restore, save
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import TrialOutcome
from kickwatch.detect.wager import Null, SavedWealth
from kickwatch.model import Trial
from watching import PACE, serial, watched

TRIALS = [serial(each) for each in (0, 0, 1, 0, 0, 3, 1, 1, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0)]


def elsewhere(one: Trial) -> Trial:
    return replace(one, node=replace(one.node, kernel="6.19.0", boot_id="b"))


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0, 0, 0, 1, 3]), max_size=25), st.sets(st.integers(0, 25)), st.integers(0, 25))
def test_restarts_change_nothing(rises: list[int], restarts: set[int], update: int) -> None:
    trials = [serial(each, number=4) for each in rises]
    trials = [one if index < update else elsewhere(one) for index, one in enumerate(trials)]
    whole, expected = watched(Monitor(PACE), trials)
    monitor = Monitor(PACE)
    state, again = monitor.start(), []
    for index, one in enumerate(trials):
        if index in restarts:
            monitor = Monitor(PACE)
            state, lost = restore(monitor, save(Monitor(PACE), state))
            assert not lost
        state, outcome = monitor.step(state, one)
        again.append(outcome)
    assert again == expected
    assert monitor.flush_zeros(state) == monitor.flush_zeros(whole)
    assert save(monitor, state) == save(Monitor(PACE), whole)


def test_a_restart_amid_evidence_costs_no_container() -> None:
    faulty = [serial(3, number=1) for _ in range(12)]
    _, said = watched(Monitor(PACE), faulty)
    alarm = _alarm(said)
    assert alarm > 3
    monitor = Monitor(PACE)
    state, _ = watched(monitor, faulty[:3])
    restored, _ = restore(Monitor(PACE), save(monitor, state))
    _, after = watched(Monitor(PACE), faulty[3:], restored)
    assert _alarm(after) == alarm - 3


def _alarm(outcomes: list[TrialOutcome]) -> int:
    """The container at which the stream `attributed` raised its alarm."""
    return next(
        n for n, outcome in enumerate(outcomes) if "attributed" in {change.stream for change in outcome.changes}
    )


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 3]), max_size=40), st.integers(0, 40), st.integers(1, 5))
def test_zeros_that_are_added_later_are_the_same_to_the_last_bit(rises: list[int], boot: int, number: int) -> None:
    """Trials of zeros that are counted, against trials that are added to the evidence one by one."""
    monitor = Monitor(PACE)
    counted = added = monitor.start()
    for index, each in enumerate(rises):
        one = serial(each, number=number + index // 20, started_unix_s=EPOCH_S - 3.0 + 0.5 * index)
        one = elsewhere(one) if index >= boot else one
        counted, outcome = monitor.step(counted, one)
        added, same = monitor.step(monitor.flush_zeros(added), one)
        assert outcome == same
    assert monitor.flush_zeros(counted) == monitor.flush_zeros(added)
    assert monitor.figures(counted) == monitor.figures(added)


def test_records_of_strata_survive_to_the_last_bit() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, (serial(0, number=7) for _ in range(150)))
    state, _ = watched(monitor, (elsewhere(serial(0, number=7)) for _ in range(90)), state)
    assert state.comparison is not None
    assert state.comparison.rules
    assert restore(Monitor(PACE), save(monitor, state)) == (monitor.flush_zeros(state), ())


def test_another_pace_continues_with_the_same_evidence() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, TRIALS[:6])
    assert restore(Monitor(Pace(100, 1.0)), save(monitor, state)) == (monitor.flush_zeros(state), ())


@pytest.mark.parametrize("bytes_", [b"", b"{", b"null", b'{"version": 1}', b"\xff\xfe", b"[]"])
def test_a_state_that_cannot_be_read_is_reported_and_the_evidence_restarts(bytes_: bytes) -> None:
    monitor = Monitor(PACE)
    state, lost = restore(monitor, bytes_)
    assert state == monitor.start()
    assert len(lost) == 1


def test_another_form_is_reported() -> None:
    monitor = Monitor(PACE)
    saved = json.loads(save(monitor, watched(monitor, TRIALS)[0]))
    saved["version"] = VERSION + 1
    state, (lost,) = restore(monitor, json.dumps(saved).encode())
    assert state == monitor.start()
    assert f"has form {VERSION + 1}" in lost


def _tampered(path: tuple[str, ...], value: object) -> bytes:
    monitor = Monitor(PACE)
    saved = json.loads(save(monitor, watched(monitor, TRIALS)[0]))
    place = saved
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(saved).encode()


def test_evidence_against_another_null_is_dropped_stream_by_stream() -> None:
    monitor = Monitor(PACE)
    state, (lost,) = restore(monitor, _tampered(("tracks", "burst", "watched", "alarm", "key"), "0x1 0x2 1:256"))
    assert "stream burst" in lost
    assert "burst" not in state.tracks
    assert state.tracks["attributed"] == monitor.flush_zeros(watched(monitor, TRIALS)[0]).tracks["attributed"]


@pytest.mark.parametrize("value", [["0x1"] * 8, ["zero"] * 9, ["0x1p+9999"] * 9])
def test_invalid_numbers_restart_the_evidence(value: list[str]) -> None:
    monitor = Monitor(PACE)
    state, lost = restore(monitor, _tampered(("tracks", "burst", "watched", "alarm", "values"), value))
    assert lost
    assert state == monitor.start()


def test_a_rule_against_another_null_is_dropped_alone() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, (serial(0, number=7) for _ in range(300)))
    state, _ = watched(monitor, (elsewhere(serial(0, number=7)) for _ in range(9)), state)
    saved = json.loads(save(monitor, state))
    saved["comparison"]["rules"][0]["track"]["watched"]["alarm"]["key"] = "other"
    restored, (lost,) = restore(monitor, json.dumps(saved).encode())
    assert "cell " in lost
    assert restored.comparison is not None
    assert state.comparison is not None
    assert restored.comparison.rules[1:] == state.comparison.rules[1:]


def test_numbers_of_the_evidence_are_hexadecimal() -> None:
    monitor = Monitor(PACE)
    saved = json.loads(save(monitor, watched(monitor, TRIALS)[0]))
    wealth = msgspec.convert(saved["tracks"]["attributed"]["watched"]["alarm"], SavedWealth)
    assert all(value.startswith("0x") for value in wealth.values)
    assert wealth.key.startswith(float(Null(0.05, 4.0).mean).hex())


def test_a_state_of_many_cells_stays_small() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice((serial(0) for _ in range(10_000)), 100))
    assert len(save(monitor, state)) < 32_000
