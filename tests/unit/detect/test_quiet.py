"""`quiet` has to be established: cases in which it once came too early, each with the right verdict."""

from collections.abc import Iterable

import msgspec
import pytest
from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, window
from kickwatch.detect.lives import Churned
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.quiet import RECENT_CONTAINERS, QuietEvidence, QuietTest, with_recent
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import ChangeKind, TrialOutcome
from kickwatch.model import AlarmKind, Cell, KmemAccounting, Origin, Path, Trial, Verdict
from watching import PACE, changes, lives, serial, watched

ELSEWHERE = Cell(
    reason="do_sync_core",
    func="do_sync_core",
    origin=Origin.STATIC_KEY,
    path=Path.OTHER,
    requests=60,
    calls=60,
    broadcasts=60,
    singles=0,
)
SENTINEL = Pace(23, 1380.0)


def verdicts(outcomes: Iterable[TrialOutcome]) -> list[tuple[Verdict, tuple[str, ...]]]:
    return [(outcome.verdict, outcome.reasons) for outcome in outcomes]


UNDECIDED = (Verdict.UNKNOWN, ("insufficient_evidence",))
QUIET = (Verdict.QUIET, ())


def late(each: int, number: int = 23) -> Trial:
    """All broadcasts come after the last container, as those of kworkers before 5.9."""
    return serial(each, number=number, containers=lives(number, 0))


def test_23_containers_without_a_broadcast_establish_quiet_as_in_a_single_run() -> None:
    test = QuietTest()
    known = QuietEvidence()
    assert test.needs(known) == 23
    known = test.step(known, Churned((0.0,) * 22))
    assert (known.established, test.needs(known)) == (False, 1)
    known = test.step(known, Churned((0.0,)))
    assert (known.established, test.needs(known)) == (True, 0)


def test_a_first_trial_full_of_kicks_is_not_quiet() -> None:
    """32 kicks for each container, after the last one is gone: once it was quiet until the second such trial."""
    _, outcomes = watched(Monitor(SENTINEL), [late(32) for _ in range(2)])
    assert verdicts(outcomes)[0] == UNDECIDED
    assert outcomes[-1].verdict is Verdict.BROADCASTING


def test_a_burst_without_a_signature_is_not_quiet_for_a_single_trial() -> None:
    burst = replace(keyed(10, 23), containers=lives(23, 0))
    _, outcomes = watched(Monitor(SENTINEL), [*(serial(number=23) for _ in range(5)), *(burst for _ in range(8))])
    assert verdicts(outcomes)[4] == QUIET
    assert {outcome.verdict for outcome in outcomes[5:]} == {Verdict.UNKNOWN, Verdict.BROADCASTING}
    assert [change.kind for change in changes(outcomes)] == [ChangeKind.RAISED]


def keyed(each: int, number: int) -> Trial:
    """A static key switched for each container: no signature."""
    keys = Cell(
        reason="do_sync_core",
        func="do_sync_core",
        origin=Origin.MEMCG,
        path=Path.CREATE,
        requests=3 * each * number,
        calls=each * number,
        broadcasts=each * number,
    )
    return serial(0, keys, number=number, containers=lives(number, each))


def test_evidence_that_grows_towards_the_threshold_is_not_quiet() -> None:
    """A broadcast for each of the last four containers gives 2e4, of 6.3e9 for an alarm; earlier zeros do not count."""
    monitor = Monitor(SENTINEL)
    state, outcomes = watched(monitor, [serial(number=23), keyed(1, 4)])
    assert verdicts(outcomes) == [QUIET, UNDECIDED]
    assert outcomes[-1].more_containers == 23
    state, outcomes = watched(monitor, [serial(number=10)], state)
    assert (verdicts(outcomes), outcomes[-1].more_containers) == ([UNDECIDED], 13)
    _, outcomes = watched(monitor, [serial(number=13)], state)
    assert verdicts(outcomes) == [QUIET]


def test_very_high_evidence_outlasts_a_trial_of_zeros() -> None:
    """Four windows full of late broadcasts, one less than an alarm takes: 23 containers of zeros do not cancel them."""
    monitor = Monitor(SENTINEL)
    burst = replace(keyed(10, 23), containers=lives(23, 0))
    state, outcomes = watched(monitor, [*(serial(number=23) for _ in range(3)), *(burst for _ in range(4))])
    assert not changes(outcomes)
    state, outcomes = watched(monitor, [serial(number=23)], state)
    assert state.quiet.established
    assert verdicts(outcomes) == [UNDECIDED]
    assert outcomes[0].more_containers is None  # more containers would not help


@pytest.mark.parametrize("stray", [1, 2])
def test_a_stray_container_does_not_end_quiet(stray: int) -> None:
    one = serial(number=23)
    odd = serial(0, kick(stray), number=23, containers=(*lives(22, 0), *lives(1, stray)))
    _, outcomes = watched(Monitor(SENTINEL), [one, replace(odd, churn=window("churn", TLB, RCU, kick(stray))), one])
    assert {outcome.verdict for outcome in outcomes} <= {Verdict.QUIET, Verdict.UNKNOWN}
    assert outcomes[-1].verdict is Verdict.QUIET


def test_after_an_alarm_quiet_is_established_again() -> None:
    trials = [serial(number=23), serial(3, number=23), *(serial(number=4) for _ in range(15))]
    _, outcomes = watched(Monitor(SENTINEL), trials)
    found = verdicts(outcomes)
    assert found[1] == (Verdict.BROADCASTING, ("creation_path_broadcasts",))
    end = next(index for index, outcome in enumerate(outcomes) if changes([outcome], ChangeKind.ENDED))
    assert {verdict for verdict, _ in found[2:end]} == {Verdict.BROADCASTING}
    assert found[-1] == QUIET


def test_containers_that_come_with_broadcasts_from_elsewhere_are_not_quiet_at_once() -> None:
    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, [serial(number=23), serial(0, ELSEWHERE, number=23)])
    assert verdicts(outcomes) == [QUIET, (Verdict.UNKNOWN, ("broadcasts_elsewhere",))]
    state, outcomes = watched(monitor, [serial(0, ELSEWHERE) for _ in range(60)], state)
    (change,) = changes(outcomes)
    assert (change.kind, change.alarm, change.stream) == (ChangeKind.RAISED, AlarmKind.ELSEWHERE, "elsewhere")
    assert "from outside the creation path" in change.text
    _, outcomes = watched(monitor, [serial() for _ in range(200)], state)
    assert changes(outcomes)[0].kind is ChangeKind.ENDED
    assert verdicts(outcomes)[-1] == QUIET


def test_small_trials_are_summed_for_broadcasts_elsewhere() -> None:
    """Two stray broadcasts and four containers make half a broadcast each, though other work may have caused them."""
    stray = replace(ELSEWHERE, broadcasts=2, calls=2, requests=6)
    quiet = [serial(number=4) for _ in range(10)]
    _, outcomes = watched(Monitor(PACE), [*quiet, serial(0, stray, number=4), *quiet])
    assert {outcome.verdict for outcome in outcomes[6:]} == {Verdict.QUIET}


def test_only_the_latest_containers_are_remembered() -> None:
    known = QuietEvidence()
    for excess in (50.0, 0.0, 0.0, 0.0):
        known = with_recent(known, excess, 10)
    assert known.recent == ((0.0, 10),) * 3
    assert sum(count for _, count in known.recent) >= RECENT_CONTAINERS


def failed(number: int = 4) -> Trial:
    return trial(containers=containers(0, failed=number), canary=None)


def test_two_trials_of_failed_containers_are_unknown_and_establish_nothing() -> None:
    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, [serial(number=23), failed(), failed(), failed()])
    failing = (Verdict.UNKNOWN, ("containers_failed",))
    assert verdicts(outcomes) == [QUIET, QUIET, failing, failing]
    before, _ = watched(monitor, [serial(number=23)])
    assert state.quiet.wealth == before.quiet.wealth
    assert state.looked_unix_s == before.looked_unix_s
    _, outcomes = watched(monitor, [serial(number=4)], state)
    assert verdicts(outcomes) == [QUIET]


def test_containers_that_never_ran_are_never_quiet() -> None:
    _, outcomes = watched(Monitor(PACE), [failed() for _ in range(50)])
    assert Verdict.QUIET not in {outcome.verdict for outcome in outcomes}


def test_failures_do_not_hide_an_alarm() -> None:
    _, outcomes = watched(Monitor(PACE), [serial(3, number=23), failed(), failed()])
    assert outcomes[-1].verdict is Verdict.BROADCASTING


@pytest.mark.parametrize("trials", [[serial(number=4)], [serial(number=23), serial(1, number=4)], [failed(), failed()]])
def test_the_evidence_for_quiet_survives_to_the_last_bit(trials: list[Trial]) -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, trials)
    again, lost = restore(monitor, save(monitor, state))
    assert not lost
    assert (again.quiet, again.reasons, again.more_containers) == (
        state.quiet,
        state.reasons,
        state.more_containers,
    )
    assert again.looked_unix_s == state.looked_unix_s


def test_evidence_of_the_stream_unexplained_continues_as_elsewhere() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [serial(0, ELSEWHERE) for _ in range(5)])
    old = save(monitor, state).replace(b'"elsewhere":{', b'"unexplained":{')
    again, lost = restore(monitor, old)
    assert not lost
    assert again.tracks["elsewhere"] == state.tracks["elsewhere"]  # type: ignore[index]


@pytest.mark.parametrize("faulty", [10, 100])
def test_quiet_is_established_soon_after_an_alarm_however_long_it_held(faulty: int) -> None:
    trials = [*(keyed(3, 23) for _ in range(faulty)), *(serial(number=23) for _ in range(5))]
    _, outcomes = watched(Monitor(SENTINEL), trials)
    found = verdicts(outcomes)
    assert found[faulty - 1] == (Verdict.BROADCASTING, ("creation_path_broadcasts",))
    assert QUIET in found[faulty : faulty + 3]


def test_two_void_trials_in_a_row_are_unknown_with_their_reason() -> None:
    off = serial(kmem_accounting=KmemAccounting.OFF)
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [serial(number=23), off])
    assert (state.verdict, state.reasons) == (Verdict.QUIET, ())
    state, _ = watched(monitor, [off], state)
    assert (state.verdict, state.reasons) == (Verdict.UNKNOWN, ("kmem_accounting_off",))
    state, _ = watched(monitor, [serial()], state)
    assert (state.verdict, state.quiet.void) == (Verdict.QUIET, 0)


def test_quiet_of_an_older_release_has_to_be_established_again() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, [serial(number=23)])
    saved = msgspec.json.decode(save(monitor, state))
    for new in ("reasons", "more_containers", "looked_unix_s", "silence"):
        del saved[new]
    again, lost = restore(monitor, msgspec.json.encode(saved))
    assert not lost
    assert (again.verdict, again.reasons) == UNDECIDED
