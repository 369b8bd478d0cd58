"""Every broadcast belongs to exactly one class and is observed; and what BPF programs may cost."""

from itertools import product

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, containers, trial
from kickwatch.attribution.reasons import REASONS
from kickwatch.detect.classes import (
    LEARNING_CONTAINERS,
    SPARE,
    TEXT_PATCHING,
    BpfCost,
    BroadcastClass,
    Broadcasts,
    bpf_allowance,
    bpf_cost,
    broadcasts_of,
    class_of,
    jit_broadcasts,
    release_of,
    unallowed_above_quiet,
    wakeups_told_apart,
)
from kickwatch.detect.observations import observations_of
from kickwatch.detect.strata import stratum_of
from kickwatch.detect.streams import StreamName
from kickwatch.model import CREATION_ORIGINS, Cell, Origin, Path

EVERY = list(product([reason.name for reason in REASONS] + ["a_reason_without_a_row"], Origin, Path))
OBSERVED_BY = {
    BroadcastClass.CREATION: {StreamName.ATTRIBUTED, StreamName.BURST, StreamName.SIGNATURE},
    BroadcastClass.DESTROY: {StreamName.DESTROY},
    BroadcastClass.PERCPU_BALANCE: {StreamName.PERCPU_BALANCE},
    BroadcastClass.BPF: {StreamName.BPF},
    BroadcastClass.FREEZER: {StreamName.ELSEWHERE},  # what its key does not explain
    BroadcastClass.ELSEWHERE: {StreamName.ELSEWHERE},
    BroadcastClass.TRACING: set[StreamName](),
}


def broadcasting(reason: str, origin: Origin, path: Path, broadcasts: int = 23) -> Cell:
    return Cell(
        reason=reason,
        func=reason,
        origin=origin,
        path=path,
        requests=3 * broadcasts,
        calls=broadcasts,
        broadcasts=broadcasts,
        singles=0,
    )


def observed_by(cell: Cell) -> set[StreamName]:
    """The streams that observe the broadcasts of a cell in the churn window."""
    seen = observations_of(trial(cell))
    observed = {name for name, amounts in seen.amounts.items() if any(amounts)}
    return observed | {name for name, (churn, quiet) in seen.windows.items() if churn != quiet}


@pytest.mark.parametrize("path", Path)
@pytest.mark.parametrize("origin", Origin)
def test_each_broadcast_is_of_exactly_one_class(origin: Origin, path: Path) -> None:
    of = class_of(origin, path)
    for reason in dict.fromkeys(reason for reason, _, _ in EVERY):
        cell = broadcasting(reason, origin, path)
        counted = broadcasts_of([cell])
        classes = counted.created, counted.destroyed, counted.balanced, counted.bpf, counted.freezer, counted.elsewhere
        assert sorted(classes) == [0] * 5 + [0 if of is BroadcastClass.TRACING else 23]
        observed = observed_by(cell)
        assert observed <= OBSERVED_BY[of]
        flips = of is BroadcastClass.FREEZER and reason == TEXT_PATCHING
        assert bool(observed) is (of is not BroadcastClass.TRACING and not flips)


def test_no_row_is_forgotten() -> None:
    assert len(EVERY) == (len(REASONS) + 1) * len(Origin) * len(Path)
    assert {class_of(origin, path) for _, origin, path in EVERY} == set(BroadcastClass)
    assert set(OBSERVED_BY) == set(BroadcastClass)


@pytest.mark.parametrize(
    ("origin", "path", "expected"),
    [
        *((origin, Path.CREATE, BroadcastClass.CREATION) for origin in CREATION_ORIGINS),
        *((origin, Path.DESTROY, BroadcastClass.DESTROY) for origin in CREATION_ORIGINS),
        (Origin.SLAB, Path.OTHER, BroadcastClass.ELSEWHERE),  # the fault of 2017 with its outer frames cut
        (Origin.STATIC_KEY, Path.OTHER, BroadcastClass.ELSEWHERE),  # SO_TIMESTAMP: a worker patches
        (Origin.VMALLOC, Path.OTHER, BroadcastClass.ELSEWHERE),
        (Origin.UNKNOWN, Path.DESTROY, BroadcastClass.ELSEWHERE),
        (Origin.IRQ, Path.OTHER, BroadcastClass.ELSEWHERE),
        (Origin.PERCPU, Path.OTHER, BroadcastClass.PERCPU_BALANCE),
        (Origin.BPF, Path.DESTROY, BroadcastClass.BPF),
        (Origin.FREEZER, Path.OTHER, BroadcastClass.FREEZER),
        (Origin.TRACING, Path.OTHER, BroadcastClass.TRACING),
    ],
)
def test_the_classes_are_these(origin: Origin, path: Path, expected: BroadcastClass) -> None:
    assert class_of(origin, path) is expected


def test_ordinary_requests_are_no_broadcasts() -> None:
    assert broadcasts_of([TLB, RCU]) == Broadcasts()


@pytest.mark.parametrize(
    ("kernel", "release"),
    [
        ("4.19.1", (4, 19)),
        ("5.17.0-rc3+", (5, 17)),
        ("5.18-rc1", (5, 18)),
        ("6.18.44-fc-v595", (6, 18)),
        ("unknown", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_release_is_read_from_the_name(kernel: str, release: tuple[int, int]) -> None:
    assert release_of(kernel) == release


def test_programs_broadcast_where_they_are_not_packed() -> None:
    assert jit_broadcasts("x86_64", "5.17.9")
    assert not jit_broadcasts("x86_64", "5.18.0")
    assert jit_broadcasts("aarch64", "6.12.0")


@pytest.mark.parametrize(
    ("arch", "cgroup", "patched", "cost"),
    [
        ("x86_64", "v1", 60, 80.0),
        ("x86_64", "v2", 60, 20.0),  # a key switched on and off for each of 10 containers, 6 broadcasts each
        ("x86_64", "v2", 90, 50.0),
        ("aarch64", "v2", 20, 20.0),
        ("aarch64", "v2", 60, 60.0),
    ],
)
def test_switching_the_key_of_device_programs_is_no_cost_on_cgroup_v2(
    arch: str, cgroup: str, patched: int, cost: float
) -> None:
    node = replace(trial().node, arch=arch, cgroup=cgroup)
    assert bpf_cost(node, 10, Broadcasts(bpf=20 + patched, patched=patched)) == BpfCost(10, cost)


def test_patches_come_from_the_record_or_from_the_reason_in_older_ones() -> None:
    flips = broadcasting("kick_all_cpus_sync", Origin.BPF, Path.CREATE)
    assert broadcasts_of([flips]).patched == 0
    assert broadcasts_of([replace(flips, patches=9)]).patched == 9
    assert broadcasts_of([broadcasting("do_sync_core", Origin.BPF, Path.CREATE)]).patched == 23


def test_the_allowed_cost_of_programs_is_learnt_where_each_of_them_broadcasts() -> None:
    old = trial(node=replace(trial().node, kernel="5.10.0-30-amd64", cgroup="v2"))
    stratum = stratum_of(old)
    young = BpfCost(LEARNING_CONTAINERS - 1, 144.0)
    assert bpf_allowance(stratum, young) is None
    assert bpf_allowance(stratum, young.plus(BpfCost(1, 16.0))) == 1.25 * 16.0 + SPARE
    assert bpf_allowance(stratum_of(trial()), BpfCost()) == SPARE


def test_bpf_is_unallowed_only_where_programs_are_packed() -> None:
    jit = broadcasting("do_flush_tlb_all", Origin.BPF, Path.CREATE)
    new = trial(jit, containers=containers(23))
    assert unallowed_above_quiet(new) == 23.0
    assert unallowed_above_quiet(replace(new, node=replace(new.node, kernel="5.10.0"))) == 0.0
    keys = trial(broadcasting("do_sync_core", Origin.BPF, Path.CREATE, 6 * 23))
    assert unallowed_above_quiet(replace(keys, node=replace(keys.node, cgroup="v2"))) == 0.0


@pytest.mark.parametrize(
    ("arch", "kernel", "halt", "apart"),
    [
        ("x86_64", "6.18.44", None, True),  # as records before were judged
        ("x86_64", "6.18.44", False, True),
        ("x86_64", "6.18.44", True, False),
        ("x86_64", "5.8.0", True, False),
        ("x86_64", "5.7.19", True, True),  # wakeups have a row of their own
        ("x86_64", "rolling", True, False),
        ("aarch64", "6.12.0", None, False),
        ("aarch64", "5.4.0", False, False),
    ],
)
def test_wakeups_are_told_apart_where_idle_cpus_poll_or_wakeups_are_no_calls(
    arch: str, kernel: str, halt: bool | None, apart: bool
) -> None:
    assert wakeups_told_apart(arch, kernel, idle_cpus_halt=halt) is apart
