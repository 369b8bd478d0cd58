"""The script of a trial in pairs of halves, on a virtual loop: edges, coins, lives that outlast, and the record."""

import asyncio
from itertools import pairwise

import pytest
from msgspec.structs import replace

from builders import TLB, containers, kick
from kickwatch.errors import EngineError
from kickwatch.experiment.half_length import half_of
from kickwatch.experiment.paired_halves import bursts_of, coins_of
from kickwatch.model import (
    Cell,
    ContentionRung,
    Control,
    HalfFigures,
    IpiRung,
    Observers,
    Origin,
    Path,
    Trial,
    WindowKind,
)
from virtual_loop import run_virtually
from virtual_trial import SAMPLE_S, VirtualTrial

ELSEWHERE = replace(kick(1), reason="do_sync_core", func="do_sync_core", origin=Origin.STATIC_KEY, path=Path.OTHER)
LATE = replace(kick(2), origin=Origin.MEMCG, path=Path.DESTROY)


def paired(**changes: object) -> VirtualTrial:
    return VirtualTrial(**({"paired": True, "window_s": 0.1, "life_s": 0.5} | changes))


def run(virtual: VirtualTrial) -> Trial:
    return run_virtually(virtual.run())


# --- coins and bursts


def test_the_coins_are_the_seeds_and_fair() -> None:
    assert coins_of(7, 23) == coins_of(7, 23)
    assert coins_of(7, 23)[:10] == coins_of(7, 10)
    heads = [sum(coins_of(seed, 23)) for seed in range(1000)]
    assert 11.3 < sum(heads) / 1000 < 11.7
    first_two = {coins_of(seed, 2) for seed in range(100)}
    assert len(first_two) == 4


@pytest.mark.parametrize(
    ("containers", "concurrency", "bursts"), [(3, 1, (1, 1, 1)), (8, 4, (4, 4)), (9, 4, (4, 4, 1)), (2, 4, (2,))]
)
def test_every_container_is_in_one_burst(containers: int, concurrency: int, bursts: tuple[int, ...]) -> None:
    assert bursts_of(containers, concurrency) == bursts


# --- edges


def test_each_pair_has_a_half_with_the_life_and_an_equal_one_without() -> None:
    virtual = paired()
    record = run(virtual)
    halves = virtual.observers.windows[:16]
    coins = coins_of(record.seed, 8)
    for number, (first, second) in enumerate(zip(halves[::2], halves[1::2], strict=True)):
        kinds = (WindowKind.CHURN, WindowKind.QUIET) if coins[number] else (WindowKind.QUIET, WindowKind.CHURN)
        assert (first.kind, second.kind) == kinds
        assert first.duration_ns == pytest.approx(second.duration_ns, abs=2 * SAMPLE_S * 1e9)
        assert first.duration_ns / 1e9 == pytest.approx(half_of(0.5), abs=3 * SAMPLE_S)
    assert [pair.churn_first for pair in record.pairs] == list(coins)
    assert record.order == ((WindowKind.CHURN, WindowKind.QUIET) if coins[0] else (WindowKind.QUIET, WindowKind.CHURN))
    assert not any(pair.outlasted for pair in record.pairs)
    assert sum(pair.containers for pair in record.pairs) == len(record.containers) == 8


def test_the_windows_are_the_sums_of_the_halves_and_nothing_is_left_out() -> None:
    virtual = paired()
    record = run(virtual)
    *halves, settling, _canary = virtual.observers.windows
    churn = [half for half in halves if half.kind is WindowKind.CHURN]
    quiet = [half for half in halves if half.kind is WindowKind.QUIET]
    assert record.churn.duration_ns == sum(half.duration_ns for half in churn) + settling.duration_ns
    assert record.quiet.duration_ns == sum(half.duration_ns for half in quiet)
    assert record.quiet.cells[0].requests == 8 * TLB.requests
    assert settling.duration_ns / 1e9 == pytest.approx(2.0, abs=0.3)
    assert "sample" in virtual.stage.calls
    assert virtual.stage.calls.count("sample") == 1 + 2 * 8 + 1 + 2  # the first edge, two a pair, the end, the canary's


@pytest.mark.parametrize("window_s", [3.0, 20.0])
def test_it_takes_as_long_as_two_windows_of_the_shortest_length(window_s: float) -> None:
    record = run(paired(window_s=window_s, containers=4, life_s=0.1))
    assert (record.churn.duration_ns + record.quiet.duration_ns) / 1e9 == pytest.approx(2 * window_s, abs=0.5)


def test_while_it_waits_it_says_that_it_is_alive() -> None:
    virtual = paired(window_s=61.0, containers=1)
    run(virtual)
    gaps = [later - earlier for earlier, later in pairwise([1000.0, *virtual.stage.alive_at_s])]
    assert max(gaps) < 6.0


def test_concurrent_containers_are_one_burst() -> None:
    virtual = paired(containers=9, concurrency=4)
    record = run(virtual)
    assert [pair.containers for pair in record.pairs] == [4, 4, 1]
    assert len(record.containers) == 9


# --- lives


def test_halves_follow_the_lives() -> None:
    virtual = paired(containers=12)
    virtual.workload.container_s = 0.2
    record = run(virtual)
    lengths_s = [pair.half_ns / 1e9 for pair in record.pairs]
    assert lengths_s[0] == pytest.approx(half_of(0.5))
    assert lengths_s[-1] == pytest.approx(half_of(0.2), abs=0.01)


@pytest.mark.parametrize("life_s", [0.8, 3.0])
def test_a_life_that_outlasts_its_half_is_noted_and_does_not_move_the_edges(life_s: float) -> None:
    for seed in range(8):
        virtual = paired(containers=1, seed=seed)
        virtual.workload.lives_s = [life_s]
        record = run(virtual)
        (pair,) = record.pairs
        assert pair.outlasted
        first, second = virtual.observers.windows[:2]
        assert first.duration_ns == pytest.approx(pair.half_ns, abs=2 * SAMPLE_S * 1e9)
        assert second.duration_ns == pytest.approx(pair.half_ns, abs=2 * SAMPLE_S * 1e9)
        ((began_s, ended_s),) = virtual.workload.lived
        after_s = 1000.0 + 2 * pair.half_ns / 1e9 + 0.01
        kinds = [window.kind for window in virtual.observers.windows[2:-1]]
        overran = ended_s > after_s
        assert kinds == [WindowKind.CHURN] * (2 if overran else 1)  # the rest of the life, then the settling
        assert ended_s - began_s == pytest.approx(life_s, abs=0.01)


def test_halves_grow_with_lives_that_outlast_them() -> None:
    virtual = paired(containers=6)
    virtual.workload.container_s = 0.8
    record = run(virtual)
    assert [pair.outlasted for pair in record.pairs] == [True, False, False, False, False, False]
    assert record.pairs[-1].half_ns / 1e9 == pytest.approx(half_of(0.8), abs=0.01)


def test_a_failed_container_does_not_make_halves_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = paired(containers=12)
    virtual.workload.container_s = 40.0
    monkeypatch.setattr("virtual_trial.containers", lambda number: containers(0, failed=number))
    record = run(virtual)
    assert {pair.half_ns for pair in record.pairs} == {round(half_of(0.5) * 1e9)}
    assert {pair.containers for pair in record.pairs} == {0}


# --- figures


def test_a_half_has_what_was_counted_in_it() -> None:
    virtual = paired(containers=2)
    virtual.observers.of_windows = [(TLB,), (TLB, ELSEWHERE), (ELSEWHERE, kick(3), LATE), (TLB,)]
    record = run(virtual)
    in_order = [(pair.churn, pair.quiet) if pair.churn_first else (pair.quiet, pair.churn) for pair in record.pairs]
    assert [(first.elsewhere, second.elsewhere) for first, second in in_order] == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("rungs", "passed", "mutex", "isolated", "known"),
    [
        (Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT), True, True, (3,), (True, True, True)),
        (Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT), True, True, (), (True, True, False)),
        (Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE), True, True, (3,), (True, False, True)),
        (Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT), True, False, (3,), (True, False, True)),
        (Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT), False, True, (3,), (False, True, False)),
        (Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE), True, True, (3,), (False, False, False)),
    ],
)
def test_what_is_not_observed_is_not_zero(
    rungs: Observers, passed: bool, mutex: bool, isolated: tuple[int, ...], known: tuple[bool, bool, bool]
) -> None:
    virtual = paired(containers=1)
    virtual.observers.rungs = rungs
    virtual.observers.control = Control(passed=passed, detail="")
    virtual.observers.slab_mutex_known = mutex
    virtual.observers.isolated_cpus = isolated
    record = run(virtual)
    (pair,) = record.pairs
    elsewhere, waits, requests = (0 if is_known else None for is_known in known)
    expected = HalfFigures(elsewhere=elsewhere, other_waits=waits, isolated=requests)
    assert pair.churn == pair.quiet == expected
    assert record.isolated_cpus == isolated


def test_requests_to_isolated_cpus_are_unknown_where_targets_are_not_counted() -> None:
    virtual = paired(containers=1)
    virtual.observers.isolated_cpus, virtual.observers.counts_targets = (3,), False
    (pair,) = run(virtual).pairs
    assert pair.churn.isolated is None
    assert pair.quiet.isolated is None


def test_what_was_done_for_a_container_belongs_to_the_churn_window_whenever_it_was_done() -> None:
    virtual = paired(containers=4)
    virtual.observers.cells = {WindowKind.QUIET: (TLB, kick(1), LATE, ELSEWHERE)}
    record = run(virtual)
    assert {cell.path for cell in record.quiet.cells} == {Path.OTHER}
    by_path = {cell.path: cell for cell in record.churn.cells if cell.broadcasts}
    assert by_path[Path.CREATE].broadcasts == 4
    assert by_path[Path.DESTROY].broadcasts == 8
    assert sum(cell.broadcasts for cell in record.quiet.cells) == 4


def test_the_targets_of_halves_are_added_up() -> None:
    record = run(paired(containers=2))
    assert record.churn.per_cpu == (0, 3600)  # two halves and the settling
    assert record.quiet.per_cpu == (0, 2400)


def test_isolated_requests_are_added_up() -> None:
    def cell(isolated: int | None) -> Cell:
        return replace(TLB, isolated=isolated)

    virtual = paired(containers=2)
    virtual.observers.cells = {WindowKind.CHURN: (cell(3),), WindowKind.QUIET: (cell(1),)}
    record = run(virtual)
    assert record.churn.cells[0].isolated == 9  # two halves and the settling
    assert record.quiet.cells[0].isolated == 2


# --- failure and cancellation


def test_cancelled_at_any_await_it_leaves_no_canary_and_knows_what_it_began() -> None:
    whole = paired(containers=3)
    run(whole)
    awaits = whole.stage.calls
    assert len(awaits) > 30
    for number in range(1, len(awaits) + 1):
        virtual = paired(containers=3)
        virtual.stage.cancel_at = number
        with pytest.raises(asyncio.CancelledError):
            run(virtual)
        where = f"cancelled at await {number}, {awaits[number - 1]}"
        assert virtual.workload.batch == 0, where
        # A container whose half just began may be requested before the cancellation reaches it.
        assert virtual.workload.begun == virtual.stage.calls.count("container"), where
        assert set(virtual.stage.calls[number:]) <= {"remove_batch", "container"}, where
        assert virtual.stage.calls[number:].count("container") <= 1, where


@pytest.mark.parametrize("call", ["restore", "moment", "between_windows", "sample", "container", "reclaim", "node"])
def test_a_failure_ends_the_trial_and_no_container_lives_on(call: str) -> None:
    virtual = paired(containers=3)
    virtual.stage.fail_at = call
    with pytest.raises(EngineError, match=f"{call} fails"):
        run(virtual)
    assert virtual.workload.batch == 0
    assert len(virtual.workload.lived) <= virtual.workload.begun
