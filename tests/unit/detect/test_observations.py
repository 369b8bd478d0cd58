"""From a trial to observations: every broadcast in its stream, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, wait, window
from kickwatch.detect.classes import BpfCost
from kickwatch.detect.lives import lives_of
from kickwatch.detect.observations import observations_of
from kickwatch.detect.streams import StreamName
from kickwatch.model import (
    CanaryBatch,
    Cell,
    Container,
    ContentionRung,
    Interrupts,
    IpiRung,
    Observers,
    Origin,
    Path,
    Trial,
)


def lives(*rises: int | None, failed: tuple[int, ...] = ()) -> tuple[Container, ...]:
    """Containers with these rises; those at the places `failed` do not count."""
    return tuple(
        replace(life, creation_path_broadcasts=rise, failure="did not start" if life.index in failed else "")
        for life, rise in zip(containers(len(rises)), rises, strict=True)
    )


def cell(origin: Origin, path: Path, broadcasts: int, reason: str = "do_sync_core") -> Cell:
    return Cell(
        reason=reason,
        func=reason,
        origin=origin,
        path=path,
        requests=broadcasts * 3,
        calls=broadcasts,
        broadcasts=broadcasts,
    )


def test_each_life_is_an_observation_and_the_rest_is_a_burst() -> None:
    seen = observations_of(trial(kick(10), containers=lives(3, 0, 4)))
    assert seen.amounts[StreamName.ATTRIBUTED] == (3.0, 0.0, 4.0)
    assert seen.amounts[StreamName.BURST] == (1.0,)
    assert seen.containers == 3


def test_containers_at_the_same_time_are_one_burst() -> None:
    seen = observations_of(trial(kick(46), containers=lives(*[None] * 23), concurrency=8))
    assert StreamName.ATTRIBUTED not in seen.amounts
    assert seen.amounts[StreamName.BURST] == (2.0,)


def test_containers_at_the_same_time_have_no_own_lives_whatever_the_record_says() -> None:
    seen = observations_of(trial(kick(46), containers=lives(*[2] * 23), concurrency=8))
    assert StreamName.ATTRIBUTED not in seen.amounts


def test_a_failed_container_does_not_count() -> None:
    seen = observations_of(trial(kick(9), containers=lives(2, 5, 2, failed=(1,))))
    assert seen.amounts[StreamName.ATTRIBUTED] == (2.0, 2.0)
    assert seen.amounts[StreamName.BURST] == (0.0,)


def test_a_container_without_a_known_life_is_part_of_the_burst() -> None:
    seen = observations_of(trial(kick(6), containers=lives(2, None, -3)))
    assert seen.amounts[StreamName.ATTRIBUTED] == (2.0,)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(0, 500))
def test_serial_lives_and_burst_hold_every_broadcast_once(rises: list[int], late: int) -> None:
    created = sum(rises) + late
    found = lives_of(trial(containers=lives(*rises)), created)
    assert sum(found.own) + found.late == created


@given(st.lists(st.integers(0, 50) | st.none(), min_size=1, max_size=10), st.integers(0, 100))
def test_late_broadcasts_are_never_negative(rises: list[int | None], created: int) -> None:
    assert 0 <= lives_of(trial(containers=lives(*rises)), created).late <= created


def test_no_container_no_observation() -> None:
    seen = observations_of(trial(kick(5), containers=()))
    assert set(seen.amounts) == {StreamName.CANARY}
    assert seen.windows == seen.cell_costs == {}


@pytest.mark.parametrize(
    ("guilty", "name"),
    [
        (cell(Origin.PERCPU, Path.OTHER, 46, "do_flush_tlb_all"), StreamName.PERCPU_BALANCE),
        (cell(Origin.SLAB, Path.DESTROY, 46, "do_drain"), StreamName.DESTROY),
        (cell(Origin.MEMCG, Path.DESTROY, 46), StreamName.DESTROY),
        (cell(Origin.MEMCG, Path.CREATE, 46), StreamName.BURST),
        (cell(Origin.PERCPU, Path.CREATE, 46), StreamName.BURST),
    ],
)
def test_each_class_has_its_stream(guilty: Cell, name: StreamName) -> None:
    seen = observations_of(trial(guilty))
    assert {found: amounts for found, amounts in seen.amounts.items() if any(amounts)} == {name: (2.0,)}


def test_the_fault_of_2017_is_signature_and_burst() -> None:
    seen = observations_of(trial(kick(46)))
    assert {name for name, amounts in seen.amounts.items() if any(amounts)} == {StreamName.BURST, StreamName.SIGNATURE}
    assert seen.amounts[StreamName.SIGNATURE] == (2.0,)


def test_broadcasts_for_bpf_programs_have_their_own_stream() -> None:
    seen = observations_of(trial(cell(Origin.BPF, Path.CREATE, 46, "do_flush_tlb_all")))
    assert {name: amounts for name, amounts in seen.amounts.items() if any(amounts)} == {StreamName.BPF: (2.0,)}
    assert seen.bpf == BpfCost(23, 46.0)


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        (Origin.MODULE, Path.OTHER),
        (Origin.STATIC_KEY, Path.OTHER),
        (Origin.STATIC_KEY, Path.CREATE),
        (Origin.VMALLOC, Path.OTHER),
        (Origin.NET, Path.CREATE),
        (Origin.SLAB, Path.OTHER),
        (Origin.UNKNOWN, Path.DESTROY),
    ],
)
def test_broadcasts_of_no_attributed_stream_are_compared_with_the_quiet_window(origin: Origin, path: Path) -> None:
    strange = cell(origin, path, 9)
    seen = observations_of(trial(strange, quiet=window("quiet", replace(strange, broadcasts=2))))
    assert not any(map(any, seen.amounts.values()))
    assert seen.windows[StreamName.ELSEWHERE] == (9.0, 2.0)
    assert seen.elsewhere_above_quiet == 7.0


@pytest.mark.parametrize(
    ("churn", "quiet", "containers", "toss"),
    [(6, 0, 4, False), (7, 0, 4, True), (0, 7, 4, True), (7, 2, 4, False), (10, 0, 40, False), (11, 0, 40, True)],
)
def test_a_key_switched_or_mappings_purged_now_and_then_is_no_toss(
    churn: int, quiet: int, containers: int, toss: bool
) -> None:
    """One healthy container in about seventy purges mappings: churn would win each of these tosses."""
    strange = cell(Origin.VMALLOC, Path.OTHER, churn)
    one = trial(strange, quiet=window("quiet", replace(strange, broadcasts=quiet)), count=containers)
    seen = observations_of(one)
    assert (seen.windows[StreamName.ELSEWHERE] != (0.0, 0.0)) is toss
    assert seen.elsewhere_above_quiet == churn - quiet


def test_broadcasts_elsewhere_in_quiet_windows_count_as_much_as_in_churn_windows() -> None:
    assert observations_of(trial(quiet=window("quiet", cell(Origin.NET, Path.OTHER, 8)))).elsewhere_above_quiet == -8.0


def half_failed(*cells: Cell, in_failed: int = 0) -> Trial:
    """Of 23 containers 12 fail after they were created; each costs what a container costs."""
    good = lives(*[0] * 11)
    bad = tuple(
        replace(life, index=11 + number, failure="exited", creation_path_broadcasts=in_failed)
        for number, life in enumerate(lives(*[0] * 12))
    )
    return trial(*cells, containers=(*good, *bad))


def test_a_container_that_fails_after_its_start_costs_as_much_as_another() -> None:
    seen = observations_of(
        half_failed(cell(Origin.SLAB, Path.DESTROY, 23, "do_drain"), cell(Origin.BPF, Path.CREATE, 92))
    )
    assert seen.amounts[StreamName.DESTROY] == (1.0,)
    assert seen.bpf is None  # neither an observation nor a measure of what programs cost


def test_failed_containers_with_broadcasts_are_no_evidence_for_quiet() -> None:
    assert observations_of(half_failed()).churned is not None
    assert observations_of(half_failed(cell(Origin.MEMCG, Path.CREATE, 36), in_failed=3)).churned is None


def test_a_tracers_broadcasts_are_in_no_stream_since_they_void_the_trial() -> None:
    seen = observations_of(trial(cell(Origin.TRACING, Path.OTHER, 46)))
    assert not any(map(any, seen.amounts.values()))
    assert seen.windows[StreamName.ELSEWHERE] == (0.0, 0.0)


def single_requests(requests: int, **fields: object) -> Cell:
    """The creation path sends a request to one CPU after the other."""
    asked = cell(Origin.CGROUP, Path.CREATE, 0, "aperfmperf_snapshot_khz")
    return replace(asked, **({"requests": requests, "singles": requests} | fields))


def test_single_requests_of_the_creation_path_are_sweeps() -> None:
    seen = observations_of(trial(single_requests(3 * 23)))
    assert seen.amounts[StreamName.SWEEPS] == (1.0,)
    assert not any(seen.amounts[StreamName.BURST])


@pytest.mark.parametrize(
    ("odd", "sweeps"),
    [
        (single_requests(69, calls=23, singles=0), 0.0),  # calls to many CPUs
        (single_requests(69, singles=None), 1.0),  # a record of an older release: a cell without calls
        (single_requests(69, singles=None, calls=1), 0.0),
        (single_requests(69, origin=Origin.RCU), 0.0),  # not the creation path
    ],
)
def test_only_single_requests_of_the_creation_path_are_sweeps(odd: Cell, sweeps: float) -> None:
    assert observations_of(trial(odd)).amounts[StreamName.SWEEPS] == (sweeps,)


def test_with_few_cpus_nothing_is_a_sweep() -> None:
    few = trial(single_requests(69))
    assert StreamName.SWEEPS not in observations_of(replace(few, node=replace(few.node, cpus_online=3))).amounts


@pytest.mark.parametrize(("waits", "lost", "known"), [(0, 11, True), (0, 12, False), (2, 10, False), (46, 12, True)])
def test_lost_waits_that_may_be_contention_leave_no_observation(waits: int, lost: int, known: bool) -> None:
    """Such a zero ended an alarm: the losses are few beside all requests."""
    requests = replace(TLB, requests=5000)
    churn = window("churn", requests, waits=(wait(waits, path=Path.CREATE),), lost_events=lost, lost_waits=lost)
    seen = observations_of(trial(churn=churn, count=23))
    assert (StreamName.CONTENTION in seen.amounts) is known


def test_waits_on_the_create_path_count_and_the_others_are_compared() -> None:
    churn = window("churn", TLB, waits=(wait(46, path=Path.CREATE), wait(9)))
    seen = observations_of(trial(churn=churn, quiet=window("quiet", waits=(wait(4),))))
    assert seen.amounts[StreamName.CONTENTION] == (2.0,)
    assert seen.windows[StreamName.CONTENTION_EXCESS] == (9.0, 4.0)
    assert seen.longest_wait_ns == 9_000_000


@pytest.mark.parametrize(
    "unknown", [{"observers": Observers(ipis=IpiRung.CSD, contention=ContentionRung.NONE)}, {"slab_mutex_known": False}]
)
def test_waits_that_could_not_be_seen_are_no_observation(unknown: dict[str, object]) -> None:
    seen = observations_of(trial(**unknown))
    assert StreamName.CONTENTION not in seen.amounts
    assert StreamName.CONTENTION_EXCESS not in seen.windows


def _batch(**fields: object) -> CanaryBatch:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(cal=900, tlb=400, res=0), cells=(kick(500),))
    return replace(batch, **fields)


def test_the_canary_is_attributed_where_there_is_a_probe() -> None:
    assert observations_of(trial(canary=_batch())).amounts[StreamName.CANARY] == (500.0,)


def test_a_batch_that_lost_events_is_an_observation_only_with_a_broadcast() -> None:
    assert StreamName.CANARY not in observations_of(trial(canary=_batch(cells=(), lost_events=4))).amounts
    assert observations_of(trial(canary=_batch(lost_events=4))).amounts[StreamName.CANARY] == (500.0,)


@pytest.mark.parametrize(
    ("batch", "amounts"),
    [
        (_batch(), {StreamName.CANARY: (5.0 / 3,)}),  # four CPUs
        (
            _batch(interrupts=Interrupts(cal=165, tlb=100, res=0), memcgs=100),
            {StreamName.CANARY: (0.0,)},
        ),  # 6.1, healthy
        (
            _batch(interrupts=Interrupts(cal=424, tlb=100, res=0), memcgs=100),
            {StreamName.CANARY: (1.08,)},
        ),  # one kick each
        (_batch(interrupts=Interrupts(cal=400, tlb=900, res=0)), {StreamName.CANARY: (0.0,)}),
        (_batch(interrupts=Interrupts(cal=None, tlb=None, res=3)), {}),
        (_batch(memcgs=0), {}),
    ],
)
def test_the_canary_is_counted_without_a_probe(
    batch: CanaryBatch, amounts: dict[StreamName, tuple[float, ...]]
) -> None:
    blind = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)
    assert observations_of(trial(kick(50), observers=blind, canary=batch)).amounts == amounts


def test_cell_costs_are_above_quiet_and_leave_out_wakeups_and_interrupts() -> None:
    wakeups = cell(Origin.SCHED, Path.OTHER, 0, "sched_ttwu_pending")
    seen = observations_of(trial(replace(wakeups, requests=9000), containers=lives(*[0] * 10)))
    assert seen.cell_costs == {
        "flush_tlb_func mm-user other": (1200 - 100) / 10 / 3,
        "rcu_exp_handler rcu other": 160 / 10 / 3,
    }


def test_a_longer_quiet_window_counts_by_its_rate() -> None:
    quiet = window("quiet", replace(RCU, requests=100), duration_ns=20_000_000_000)
    seen = observations_of(trial(containers=lives(*[0] * 10), quiet=quiet))
    assert seen.cell_costs["rcu_exp_handler rcu other"] == (160 - 50) / 10 / 3


def test_a_cell_that_is_not_above_quiet_costs_nothing() -> None:
    seen = observations_of(trial(quiet=window("quiet", replace(TLB, requests=1300), replace(RCU, requests=160))))
    assert seen.cell_costs == {}


def test_a_void_trial_can_be_observed_like_any_other() -> None:
    sick: Trial = trial(kick(23), void="cpus_changed")
    assert observations_of(sick) == observations_of(replace(sick, void=""))
