"""The recordings of real kernels through the monitor: which raise an alarm, and which must not."""

from itertools import repeat

import pytest

from captures_as_trials import trials
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.rates import Pace
from kickwatch.detect.single import one_shot
from kickwatch.detect.state import ChangeKind
from kickwatch.model import AlarmKind, Trial, Verdict
from watching import changes, watched

TRIALS = trials()
PACE = Pace(23, 70.0)
MANY = 300
FAULTY = ("4.19-slab-unpatched: loop", "4.19-slab-docker-unpatched: churn", "6.18-slub-docker: memory.kmem.tcp")
ONCE_A_BOOT = ": warm"


def faulty(name: str) -> bool:
    return name.startswith(FAULTY)


def raised(one: Trial, times: int) -> dict[AlarmKind, int]:
    """The alarms that `times` of this trial raise, each with the number of the trial that did."""
    _, outcomes = watched(Monitor(PACE), repeat(one, times))
    found = [
        (index, change) for index, outcome in enumerate(outcomes) for change in changes([outcome], ChangeKind.RAISED)
    ]
    return {change.alarm: index for index, change in found}


def test_every_window_of_every_recording_is_there() -> None:
    assert len(TRIALS) == 2 * 4 + 2 + 5
    assert sum(map(faulty, TRIALS)) == 3


@pytest.mark.parametrize("name", [name for name in TRIALS if faulty(name)])
def test_the_faults_raise_an_alarm_in_the_first_trial(name: str) -> None:
    assert raised(TRIALS[name], MANY)[AlarmKind.BROADCASTING] == 0
    assert one_shot([TRIALS[name]]).verdict is Verdict.BROADCASTING


@pytest.mark.parametrize("name", [name for name in TRIALS if not faulty(name) and ONCE_A_BOOT not in name])
def test_nothing_else_raises_an_alarm_however_long_it_lasts(name: str) -> None:
    assert set(raised(TRIALS[name], MANY)) <= {AlarmKind.DESTROYING}
    assert one_shot([TRIALS[name]]).verdict is not Verdict.BROADCASTING


@pytest.mark.parametrize("name", [name for name in TRIALS if ONCE_A_BOOT in name])
def test_the_keys_of_the_first_memcg_of_a_boot_raise_no_alarm(name: str) -> None:
    assert raised(TRIALS[name], 1) == {}


@pytest.mark.parametrize("name", [name for name in TRIALS if "rmdir" in name or "docker-patched" in name])
def test_removals_of_old_kernels_are_the_destroy_finding(name: str) -> None:
    assert raised(TRIALS[name], MANY) == {AlarmKind.DESTROYING: 11}


def test_the_seccomp_jit_raises_nothing() -> None:
    state, _ = watched(Monitor(PACE), repeat(TRIALS["4.19-slab-docker-patched: churn"], MANY))
    track = state.tracks["bpf"]
    assert track.watched.alarm.steps == MANY - 1  # the allowance is learnt from the first trial
    assert not track.watched.alarm.reaches(1000.0)


def test_the_kmem_tcp_window_takes_7_containers() -> None:
    one = next(one for name, one in TRIALS.items() if "tcp" in name)
    _, (outcome,) = watched(Monitor(PACE), [one])
    assert [change.observations for change in outcome.changes] == [7]


def test_readers_of_slabinfo_are_no_contention_by_containers() -> None:
    one = TRIALS["6.18-slub-docker: four readers of /proc/slabinfo for 3 s"]
    assert sum(wait.waits for wait in one.churn.waits) == 2927
    assert raised(one, MANY) == {}
