"""The monitor over trials of pairs: what they raise and end, what whole trials among them do, and no bit lost."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kickwatch.detect.monitor import EPOCH_S, Monitor
from kickwatch.detect.observations import observations_of
from kickwatch.detect.persist import restore, save
from kickwatch.detect.state import ChangeKind, State
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.model import AlarmKind, Cell, ContentionRung, IpiRung, Observers, Trial, Verdict
from watching import PACE, changes, flips, paired, serial, watched

FAULT, HEALTHY = paired(*[1] * 23), paired(*[0] * 23)
PAIRED = {name for name, stream in STREAMS.items() if stream.paired}


def broken_isolation(one: Trial) -> Trial:
    cells = tuple(
        replace(cell, isolated=0 if cell.func == "flush_tlb_func" else cell.requests) for cell in one.churn.cells
    )
    return replace(one, isolated_cpus=(2, 3), churn=replace(one.churn, cells=cells))


def reaching(*differences: int, isolated: int) -> Trial:
    return broken_isolation(paired(*differences, isolated=isolated))


# --- observations


def test_a_trial_of_pairs_observes_pairs_and_whole_windows_none() -> None:
    seen = observations_of(reaching(1, 0, -2, isolated=4))
    assert seen.windows == {}
    assert seen.differences == {
        StreamName.ELSEWHERE_PAIRS: (1.0, 0.0, -2.0),
        StreamName.CONTENTION_PAIRS: (0.0, 0.0, 0.0),
        StreamName.ISOLATION: (4.0, 4.0, 4.0),
    }
    assert seen.mostly == {StreamName.ELSEWHERE_PAIRS: "", StreamName.ISOLATION: "rcu_exp_handler"}
    assert not PAIRED & set(observations_of(serial(0, flips(40))).differences)
    assert StreamName.ELSEWHERE in observations_of(serial(0, flips(40))).windows


def test_nothing_is_observed_of_isolation_where_no_cpu_is_isolated() -> None:
    assert StreamName.ISOLATION not in observations_of(paired(1, 2, isolated=3)).differences


def test_pairs_of_waits_need_a_probe_that_sees_waits() -> None:
    blind = Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE)
    assert StreamName.CONTENTION_PAIRS not in observations_of(replace(FAULT, observers=blind)).differences
    unknown = replace(FAULT, slab_mutex_known=False)
    assert StreamName.CONTENTION_PAIRS not in observations_of(unknown).differences
    counters = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.TRACEPOINT)
    assert set(observations_of(replace(FAULT, observers=counters)).differences) == {StreamName.CONTENTION_PAIRS}


def test_the_function_is_that_with_the_largest_excess_over_quiet() -> None:
    """The background makes more of another one, in both windows."""
    other = replace(flips(900), func="do_nothing", reason="kick_all_cpus_sync")
    busy = replace(
        FAULT,
        churn=replace(FAULT.churn, cells=(*FAULT.churn.cells, other)),
        quiet=replace(FAULT.quiet, cells=(*FAULT.quiet.cells, replace(other, broadcasts=890))),
    )
    assert observations_of(busy).mostly == {StreamName.ELSEWHERE_PAIRS: "do_sync_core"}


def test_the_rule_of_half_a_broadcast_goes_by_the_pairs() -> None:
    assert observations_of(paired(*[30] + [0] * 22)).elsewhere_above_quiet == 3.0
    assert observations_of(FAULT).elsewhere_above_quiet == 23.0


# --- alarms


def test_a_broadcast_with_each_container_is_an_alarm_after_two_trials() -> None:
    state, outcomes = watched(Monitor(PACE), [HEALTHY] * 5 + [FAULT] * 2)
    (raised,) = changes(outcomes, ChangeKind.RAISED)
    assert outcomes[-1].changes == (raised,)
    assert (raised.alarm, raised.stream) == (AlarmKind.ELSEWHERE, "elsewhere_pairs")
    assert raised.text.startswith(
        "46 of the last 46 containers came with more broadcasts from outside the creation path (mostly do_sync_core)"
        " than as much time without a container (by chance: half of them at most); evidence "
    )
    assert f"first seen at trial {FAULT.trial_id}" in raised.text
    assert (raised.observations, raised.hits) == (46, 46)
    assert outcomes[-1].reasons == ("broadcasts_elsewhere",)
    assert outcomes[-1].findings == ("elsewhere",)
    assert not state.quiet.established


def test_whole_trials_between_them_change_nothing_in_pairs() -> None:
    whole = serial(0, number=23)
    state, outcomes = watched(Monitor(PACE), [FAULT, whole, FAULT])
    assert [change.stream for change in outcomes[-1].changes] == ["elsewhere_pairs"]
    alone, _ = watched(Monitor(PACE), [FAULT, FAULT])
    name = StreamName.ELSEWHERE_PAIRS
    assert state.tracks[name].watched == alone.tracks[name].watched


def test_the_alarm_ends_after_14_trials_of_pairs_and_quiet_comes_back() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [FAULT] * 2)
    state, outcomes = watched(monitor, [HEALTHY, HEALTHY, serial(0, number=23)] * 7, state)
    (ended,) = changes(outcomes, ChangeKind.ENDED)
    assert ended.text.startswith("over 14 trials, containers came with no more than as much time without them")
    assert outcomes[-1].verdict is Verdict.QUIET
    assert not state.alerted


def test_bursts_are_counted_as_bursts() -> None:
    pairs = tuple(replace(one, containers=4) for one in paired(*[4] * 6).pairs)
    burst = replace(FAULT, pairs=pairs, concurrency=4)
    _, outcomes = watched(Monitor(PACE), [burst] * 20)
    (raised,) = changes(outcomes, ChangeKind.RAISED)
    assert raised.text.startswith(f"{raised.hits} bursts among the last {raised.observations} containers came with")
    assert raised.observations == 4 * raised.hits


def test_waits_off_the_creation_path_are_contention() -> None:
    waits = [paired(*[0] * 23, waits=1)] * 2
    state, outcomes = watched(Monitor(PACE), [HEALTHY] * 5 + waits)
    assert state.alerted == {AlarmKind.CONTENDED: ("contention_pairs",)}
    assert "more waits for slab_mutex off the creation path than as much time" in outcomes[-1].changes[0].text


def test_broken_isolation_is_a_finding_beside_quiet() -> None:
    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, [reaching(*[0] * 23, isolated=0)] * 5 + [reaching(*[0] * 23, isolated=9)] * 3)
    assert state.alerted == {AlarmKind.ISOLATION: ("isolation",)}
    assert [outcome.verdict for outcome in outcomes] == [Verdict.QUIET] * 8
    assert outcomes[-1].findings == ("isolation",)
    (raised,) = changes(outcomes, ChangeKind.RAISED)
    assert "requests to isolated CPUs (mostly rcu_exp_handler) than" in raised.text
    state, outcomes = watched(monitor, [reaching(*[0] * 23, isolated=0)] * 14, state)
    assert [change.kind for change in changes(outcomes)] == [ChangeKind.ENDED]


def test_evidence_that_grows_in_the_pairs_suspends_quiet() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [HEALTHY] * 3)
    assert state.verdict is Verdict.QUIET
    state, (outcome,) = watched(monitor, [paired(*[0] * 23, waits=1)], state)
    assert (outcome.verdict, outcome.reasons) == (Verdict.UNKNOWN, ("insufficient_evidence",))
    assert not state.quiet.established
    assert not state.alerted


def test_a_healthy_container_that_differs_leaves_quiet_alone() -> None:
    """Three broadcasts in one of 23, trial after trial."""
    _, outcomes = watched(Monitor(PACE), [paired(3, *[0] * 22)] * 200)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.QUIET}
    assert not changes(outcomes)


def test_a_trial_with_lost_events_may_raise_an_alarm_and_ends_none() -> None:
    monitor = Monitor(PACE)
    lossy = [replace(one, churn=replace(one.churn, lost_events=500)) for one in (FAULT, HEALTHY)]
    state, _ = watched(monitor, [lossy[0]] * 2)
    assert AlarmKind.ELSEWHERE in state.alerted
    state, _ = watched(monitor, [lossy[1]] * 100, state)
    assert AlarmKind.ELSEWHERE in state.alerted


def test_void_trials_are_no_observation() -> None:
    state, _ = watched(Monitor(PACE), [replace(FAULT, void="suspended")] * 5)
    assert not state.alerted
    assert not state.tracks


# --- to the last bit

KINDS = {
    "ties": HEALTHY,
    "few": paired(0, 0, 0),
    "whole": serial(0, number=23),
    "fault": FAULT,
    "noise": paired(1, -1, 0, 2, -3, 0),
    "isolated": reaching(0, 1, 0, isolated=2),
    "spared": reaching(0, 0, 0, isolated=0),
    "swap": serial(0, flips(40), number=23),
}
STORIES = st.lists(st.sampled_from(sorted(KINDS)), max_size=30)


def one_after_another(kinds: list[str]) -> list[Trial]:
    """As trials that begin one after another; an epoch ends amid them."""
    return [
        replace(KINDS[kind], trial_id=f"{number:08x}", started_unix_s=EPOCH_S + 70.0 * (number - 9))
        for number, kind in enumerate(kinds)
    ]


@settings(max_examples=60)
@given(STORIES, st.sets(st.integers(0, 30)))
def test_restarts_change_nothing(kinds: list[str], restarts: set[int]) -> None:
    trials = one_after_another(kinds)
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
    assert save(monitor, state) == save(Monitor(PACE), whole)


@settings(max_examples=60)
@given(STORIES)
def test_zeros_that_are_added_later_are_the_same_to_the_last_bit(kinds: list[str]) -> None:
    monitor = Monitor(PACE)
    counted = added = monitor.start()
    for one in one_after_another(kinds):
        counted, outcome = monitor.step(counted, one)
        added, same = monitor.step(monitor.flush_zeros(added), one)
        assert outcome == same
    assert monitor.flush_zeros(counted) == monitor.flush_zeros(added)
    assert monitor.figures(counted) == monitor.figures(added)


def test_a_state_from_before_the_pairs_continues_and_they_start_empty() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, one_after_another(["whole", "swap", "noise", "swap"]))
    saved = json.loads(save(monitor, state))
    for kept in (saved["tracks"], saved["published"]):
        for name in PAIRED & set(kept):
            del kept[name]
    old, lost = restore(Monitor(PACE), json.dumps(saved).encode())
    assert lost == ()
    assert set(old.tracks) == set(state.tracks) - PAIRED
    assert _evidence(watched(monitor, [FAULT], old)[0]) == _evidence(watched(monitor, [FAULT])[0])


def _evidence(state: State) -> object:
    return state.tracks[StreamName.ELSEWHERE_PAIRS].watched


@pytest.mark.parametrize("cells", [(), (flips(3),)])
def test_a_record_of_an_older_release_has_no_pairs(cells: tuple[Cell, ...]) -> None:
    assert not serial(0, *cells).pairs
    assert not observations_of(serial(0, *cells)).differences
