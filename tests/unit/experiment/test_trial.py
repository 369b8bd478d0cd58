"""The script of a trial on a virtual clock: windows, settling, order, canary, cancellation, and the record."""

import asyncio
from itertools import pairwise

import pytest
from msgspec.structs import replace

from builders import TLB, containers, kick, trial
from kickwatch.errors import EngineError
from kickwatch.experiment.kmem_accounting import KmemFacts
from kickwatch.experiment.whole_windows import order_of
from kickwatch.model import (
    CanaryBatch,
    ContentionRung,
    Control,
    Disturbance,
    IpiRung,
    KmemAccounting,
    Observers,
    Origin,
    Trial,
    WindowKind,
)
from kickwatch.node.continuity import Moment
from kickwatch.observe.readings import Health
from virtual_trial import BATCH_S, CHURN_FIRST, QUIET_FIRST, SAMPLE_S, START_S, UNIX_S, VirtualTrial

BOTH_ORDERS = pytest.mark.parametrize("seed", [CHURN_FIRST, QUIET_FIRST])


def kinds(virtual: VirtualTrial) -> list[str]:
    return [window.kind.value for window in virtual.observers.windows]


# --- windows


@BOTH_ORDERS
@pytest.mark.parametrize("container_s", [0.01, 0.5, 3.0])
async def test_both_windows_are_equally_long(seed: int, container_s: float) -> None:
    virtual = VirtualTrial(seed=seed)
    virtual.workload.container_s = container_s
    record = await virtual.run()
    assert abs(record.churn.duration_ns - record.quiet.duration_ns) / 1e9 <= 0.06
    assert record.churn.duration_ns / 1e9 >= virtual.settings.window_s
    assert record.order[0] == ("churn" if seed == CHURN_FIRST else "quiet")


async def test_a_quiet_window_that_was_too_short_is_extended() -> None:
    """Eight containers are expected to take 2.8 s, and take 24 s."""
    virtual = VirtualTrial(seed=QUIET_FIRST)
    virtual.workload.container_s = 3.0
    record = await virtual.run()
    assert kinds(virtual) == ["quiet", "churn", "quiet", "canary"]
    first, churn, rest, _ = virtual.observers.windows
    assert first.duration_ns < churn.duration_ns
    assert record.quiet.duration_ns == first.duration_ns + rest.duration_ns
    assert record.quiet.cells[0].requests == 2 * TLB.requests


async def test_a_churn_window_that_was_too_short_is_extended() -> None:
    virtual = VirtualTrial(seed=QUIET_FIRST, containers=40)
    virtual.workload.container_s = 0.01
    record = await virtual.run()
    assert kinds(virtual) == ["quiet", "churn", "canary"]
    assert record.churn.duration_ns / 1e9 == pytest.approx(40 * 0.35 + 2.0, abs=0.01)


@pytest.mark.parametrize(("concurrency", "hold_s", "expected_s"), [(1, 0.0, 16.0), (4, 0.0, 5.5), (4, 1.65, 22.0)])
async def test_the_first_quiet_window_is_as_long_as_the_churn_should_take(
    concurrency: int, hold_s: float, expected_s: float
) -> None:
    virtual = VirtualTrial(seed=QUIET_FIRST, containers=40, concurrency=concurrency, hold_s=hold_s)
    await virtual.run()
    assert virtual.observers.windows[0].duration_ns / 1e9 == pytest.approx(expected_s, abs=0.01)


@BOTH_ORDERS
async def test_while_it_waits_it_says_that_it_is_alive(seed: int) -> None:
    """A window can be longer than the watchdog waits."""
    virtual = VirtualTrial(seed=seed, window_s=61.0, containers=1)
    await virtual.run()
    gaps = [later - earlier for earlier, later in pairwise([START_S, *virtual.stage.alive_at_s])]
    assert sum(gaps) > 2 * 60
    assert max(gaps) < 6.0


# --- settling


async def test_the_churn_window_ends_two_seconds_after_the_last_broadcast() -> None:
    virtual = VirtualTrial(window_s=0.1)
    virtual.observers.broadcasting_until_s = START_S + 10.0
    record = await virtual.run()
    assert not record.unsettled
    assert virtual.observers.last_broadcast_s > START_S + 9.0
    ended_s = START_S + SAMPLE_S + record.churn.duration_ns / 1e9
    assert 2.0 <= ended_s - virtual.observers.last_broadcast_s <= 2.3


async def test_settling_gives_up_and_the_record_says_so() -> None:
    virtual = VirtualTrial(window_s=0.1)
    virtual.observers.broadcasting_until_s = START_S + 3600.0
    record = await virtual.run()
    assert record.unsettled
    assert 8 * 0.5 + 15.0 <= record.churn.duration_ns / 1e9 <= 8 * 0.5 + 15.6


async def test_without_a_probe_two_seconds_are_waited() -> None:
    virtual = VirtualTrial(window_s=0.1)
    virtual.observers.armed = False
    record = await virtual.run()
    assert not record.unsettled
    assert record.churn.duration_ns / 1e9 == pytest.approx(8 * 0.5 + 2.0, abs=0.1)


# --- order


async def test_the_order_is_the_seeds() -> None:
    orders = [order_of(seed) for seed in range(1000)]
    assert orders == [order_of(seed) for seed in range(1000)]
    churn_first = sum(order[0] is WindowKind.CHURN for order in orders)
    assert 400 < churn_first < 600
    assert {order[1] for order in orders if order[0] is WindowKind.CHURN} == {WindowKind.QUIET}
    for seed in range(6):
        record = await VirtualTrial(seed=seed).run()
        assert (record.seed, record.order) == (seed, order_of(seed))


# --- canary


async def test_the_canary_is_removed_outside_of_every_window() -> None:
    virtual = VirtualTrial()
    await virtual.run()
    calls = virtual.stage.calls
    at = calls.index("create_batch")
    assert calls[at - 1 : at + 3] == ["sample", "create_batch", "sample", "remove_batch"]
    assert "sample" not in calls[at + 2 :]
    assert calls[at + 3 :] == ["moment", "reclaim", "node", "kmem_facts"]


async def test_no_canary_is_made_where_none_is_asked_for() -> None:
    virtual = VirtualTrial(canary_memcgs=0)
    assert (await virtual.run()).canary is None
    assert not {"create_batch", "remove_batch"} & set(virtual.stage.calls)


async def test_a_canary_that_fails_is_removed() -> None:
    virtual = VirtualTrial()
    virtual.stage.fail_at = "create_batch"
    with pytest.raises(EngineError, match="create_batch fails"):
        await virtual.run()
    assert virtual.stage.calls[-1] == "remove_batch"
    assert virtual.workload.batch == 0


async def test_a_canary_whose_sample_is_refused_is_removed() -> None:
    virtual = VirtualTrial()
    create = virtual.workload.create_batch

    async def create_then_refuse(memcgs: int) -> None:
        await create(memcgs)
        virtual.stage.fail_at = "sample"

    virtual.workload.create_batch = create_then_refuse  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="sample fails"):
        await virtual.run()
    assert virtual.workload.batch == 0


@pytest.mark.parametrize(
    ("health", "lost"),
    [(Health(), (0, 0)), (Health(lost=2, unknown_kind=3, stackless=5), (5, 5))],
)
async def test_a_batch_says_what_its_probe_lost(health: Health, lost: tuple[int, int]) -> None:
    virtual = VirtualTrial()
    virtual.observers.healths = [Health()] * 5 + [health]  # two windows, and the first sample of the batch
    batch = (await virtual.run()).canary
    assert batch is not None
    assert (batch.memcgs, batch.lost_events, batch.stackless_events) == (100, *lost)


# --- failure and cancellation


@BOTH_ORDERS
async def test_cancelled_at_any_await_it_leaves_no_canary_and_knows_what_it_began(seed: int) -> None:
    whole = VirtualTrial(seed=seed)
    await whole.run()
    awaits = whole.stage.calls
    assert len(awaits) > 25
    for number in range(1, len(awaits) + 1):
        virtual = VirtualTrial(seed=seed)
        virtual.stage.cancel_at = number
        with pytest.raises(asyncio.CancelledError):
            await virtual.run()
        where = f"cancelled at await {number}, {awaits[number - 1]}"
        assert virtual.workload.batch == 0, where
        assert virtual.workload.begun == awaits[:number].count("container"), where
        assert set(virtual.stage.calls[number:]) <= {"remove_batch"}, where


@pytest.mark.parametrize("call", ["restore", "moment", "between_windows", "sample", "container", "reclaim", "node"])
async def test_a_failure_ends_the_trial_at_once(call: str) -> None:
    virtual = VirtualTrial()
    virtual.stage.fail_at = call
    with pytest.raises(EngineError, match=f"{call} fails"):
        await virtual.run()
    assert virtual.stage.calls[-1] == call
    assert virtual.workload.batch == 0


# --- the record


async def test_the_record_field_by_field() -> None:
    virtual = VirtualTrial(seed=CHURN_FIRST, concurrency=2)
    virtual.workload.notes = ("a knob is ignored",)
    record = await virtual.run()
    churn, quiet, batch = virtual.observers.windows
    assert record == Trial(
        trial_id="0badcafe",
        seed=CHURN_FIRST,
        order=(WindowKind.CHURN, WindowKind.QUIET),
        started_unix_s=UNIX_S,
        node=trial().node,
        observers=Observers(ipis=IpiRung.KPROBE, contention=ContentionRung.TRACEPOINT),
        churn=churn,
        quiet=quiet,
        containers=containers(8),
        canary=CanaryBatch(
            memcgs=100,
            duration_ns=round((BATCH_S + SAMPLE_S) * 1e9),
            interrupts=batch.interrupts,
            cells=batch.cells,
        ),
        kmem_accounting=KmemAccounting.ON,
        concurrency=2,
        unsettled=False,
        slab_mutex_known=False,
        control=Control(passed=True, detail="23 of 23"),
        void="",
        notes=("slab_mutex not found yet", "a knob is ignored"),
    )
    assert virtual.stage.texts == [
        "churn window, 8 containers",
        f"quiet window, {churn.duration_ns / 1e9:.1f} s",
        "canary, 100 memory cgroups",
    ]


async def test_disturbances_of_the_node_and_of_both_windows_make_it_void() -> None:
    """Each is named once; a tracer that was switched shows in the cells."""
    virtual = VirtualTrial()
    virtual.workload.moments = [Moment(0, (1, 1)), Moment(10**9, (1, 1))]
    virtual.observers.disturbances = {
        WindowKind.CHURN: (Disturbance.ROWS_CHANGED, Disturbance.RECYCLED),
        WindowKind.QUIET: (Disturbance.RECYCLED, Disturbance.COUNTER_FELL),
    }
    virtual.observers.cells = {WindowKind.QUIET: (replace(kick(3), origin=Origin.TRACING),)}
    assert (await virtual.run()).void == "suspended,rows_changed,recycled,counter_fell,tracing_toggled"


async def test_a_tracer_that_does_not_broadcast_does_not_disturb() -> None:
    virtual = VirtualTrial()
    virtual.observers.cells = {WindowKind.CHURN: (replace(kick(0), origin=Origin.TRACING, requests=3),)}
    assert (await virtual.run()).void == ""


async def test_kmem_accounting_is_what_the_node_and_the_containers_say() -> None:
    virtual = VirtualTrial()
    virtual.workload.facts = KmemFacts(disabled=True)
    assert (await virtual.run()).kmem_accounting is KmemAccounting.OFF
