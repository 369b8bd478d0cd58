"""A runtime that freezes containers to kill them: on cgroup v1 that switches a static key, which is no fault."""

import pytest
from msgspec.structs import replace

from builders import containers, trial, window
from kickwatch.detect.classes import unallowed_above_quiet
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.observations import observations_of
from kickwatch.detect.single import one_shot
from kickwatch.detect.state import ChangeKind
from kickwatch.detect.streams import StreamName
from kickwatch.model import Cell, Origin, Path, Trial, Verdict
from kickwatch.outlets.elsewhere import elsewhere_fields, other_broadcasts
from watching import PACE, changes, serial, watched

PER_POD = 18  # three freezes, each switches the key on and off: three broadcasts each way
BUSY = 27.5  # the most that was measured per container on a busy node, where runc freezes again
ALLOWED = 4 * PER_POD


def freezes(broadcasts: int, patches: int | None = None, func: str = "do_sync_core") -> Cell:
    return Cell(
        reason=func,
        func=func,
        origin=Origin.FREEZER,
        path=Path.OTHER,
        requests=3 * broadcasts,
        calls=broadcasts,
        broadcasts=broadcasts,
        singles=0,
        patches=broadcasts if patches is None else patches,
        stack=("static_key_slow_inc", "freezer_apply_state", "freezer_write", "cgroup_file_write"),
    )


def on(one: Trial, **node: str) -> Trial:
    return replace(one, node=replace(one.node, **node))


@pytest.mark.parametrize("per_container", [PER_POD, BUSY])
def test_healthy_pods_of_containerd_on_cgroup_v1_are_quiet(per_container: float) -> None:
    one = trial(freezes(round(per_container * 24)), count=24)
    assert one_shot([one]).verdict is Verdict.QUIET
    assert unallowed_above_quiet(one) == 0
    assert StreamName.ELSEWHERE not in {name for name, (a, b) in observations_of(one).windows.items() if a != b}
    (seen,) = other_broadcasts([one])
    assert (seen.heard_as, seen.origin, seen.broadcasts_per_container) == ("freezer", "freezer", per_container)


@pytest.mark.parametrize(
    ("seen", "node"),
    [
        (freezes(PER_POD * 23, patches=0, func="do_nothing"), {}),  # the freezer kicks all CPUs
        (freezes((ALLOWED + 1) * 23), {}),  # its key costs more than it did
        (freezes(PER_POD * 23), {"cgroup": "v2"}),  # which freezes without a key
        (freezes(ALLOWED * 23), {"arch": "aarch64"}),  # where switching a key is one broadcast
    ],
)
def test_what_the_freezers_key_does_not_explain_is_compared_with_quiet_windows(
    seen: Cell, node: dict[str, str]
) -> None:
    one = on(trial(seen, count=23), **node)
    single = one_shot([one])
    assert (single.verdict, single.reasons) == (Verdict.UNKNOWN, ("broadcasts_elsewhere",))
    churn, quiet = observations_of(one).windows[StreamName.ELSEWHERE]
    assert churn > quiet
    (shown,) = other_broadcasts([one])
    assert (shown.heard_as, shown.origin) == ("elsewhere", "freezer")
    assert elsewhere_fields([one])["origin"] == "freezer"


def test_a_fault_above_the_allowance_is_an_alert_of_the_daemon() -> None:
    healthy = [serial(0, freezes(PER_POD * 10)) for _ in range(200)]
    state, outcomes = watched(Monitor(PACE), healthy)
    assert not changes(outcomes, ChangeKind.RAISED)
    _, outcomes = watched(Monitor(PACE), [serial(0, freezes(2 * ALLOWED * 10)) for _ in range(100)], state)
    (alarm, *_) = changes(outcomes, ChangeKind.RAISED)
    assert alarm.stream == StreamName.ELSEWHERE


def test_freezes_of_other_peoples_containers_are_no_difference() -> None:
    busy = window("quiet", freezes(60 * PER_POD))
    one = trial(freezes((60 + 23) * PER_POD), quiet=busy)
    assert unallowed_above_quiet(one) <= 0


def test_the_function_of_another_fault_is_named_beside_many_freezes() -> None:
    worker = replace(freezes(23), func="flush", reason="flush", origin=Origin.VMALLOC, stack=("x", "kthread"))
    fields = elsewhere_fields([trial(freezes(PER_POD * 23), worker)])
    assert (fields["func"], fields["broadcasts_per_container"]) == ("flush", 1.0)


def test_a_container_that_failed_may_have_been_frozen() -> None:
    one = trial(freezes(PER_POD * 23), containers=containers(20, failed=3))
    assert unallowed_above_quiet(one) == 0
