"""How requests become calls, and calls broadcasts: synthetic events through the real program.

What a machine's own requests look like depends on its CPUs; here the targets are any that a test wants, up to those of
a hundred CPUs, and the senders two. Every target is counted, and those of isolated CPUs by function.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickwatch.model import Cell
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.request_cells import RequestSample, Totals, by_target
from kickwatch.observe.symbols import Symbols
from replay import Replay

pytestmark = pytest.mark.kernel

SYNC, NOTHING, BARRIER, SHOOTDOWN, EXPEDITED, WAKEUP = range(0xFFFFFFFF81002000, 0xFFFFFFFF81008000, 0x1000)
KALLSYMS = f"""\
ffffffff81001000 t smp_call_function_many_cond
{SYNC:x} t do_sync_core
{NOTHING:x} t do_nothing
{BARRIER:x} t ipi_mb
{SHOOTDOWN:x} t flush_tlb_func
{EXPEDITED:x} t rcu_exp_handler
{WAKEUP:x} t sched_ttwu_pending
ffffffff81008000 T _etext
"""
MANY, OTHER_MANY, ONE = 0x1000, 0x2000, 0x3000  # call sites
KIND_SINGLE, KIND_MULTI = 1, 2
CSD = 0xFFFF888000000000  # the fourth argument, which the program does not read
CPUS = sorted(os.sched_getaffinity(0))[:2]
POSSIBLE = range(103)  # the last of them are counted in another map than the first 64
ISOLATED = (3, 8, 14, 63, 64, 100)


class Request(NamedTuple):
    """One event. `sender` is an index in CPUS."""

    target: int
    func: int = SYNC
    callsite: int = MANY
    sender: int = 0


class Replayed(NamedTuple):
    """What the program counted for some events."""

    totals: dict[int, Totals]  # by func
    cells: dict[str, Cell]  # by func
    targets: tuple[int, ...]
    unplaced: int
    hits: dict[tuple[int, int], int]


class Rig:
    """The probe, loaded but not attached, with known call sites."""

    def __init__(self) -> None:
        self.observer = CsdObserver.load(Symbols.parse(KALLSYMS), 2, POSSIBLE, isolated=ISOLATED)
        self.replay = Replay(self.observer.probe)
        sites = self.observer.probe.map("callsites")
        for site, kind in ((MANY, KIND_MULTI), (OTHER_MANY, KIND_MULTI), (ONE, KIND_SINGLE)):
            sites.put(struct.pack("=Q", site), struct.pack("=I", kind))

    def run(self, requests: Sequence[Request], cpus_online: int) -> Replayed:
        """Run the requests through the program, as on a machine with `cpus_online` CPUs."""
        self.observer.cpus_online = cpus_online
        self.observer._forget_all()  # the open calls, too
        self.observer.configure()
        before = self.observer.read()
        for request in requests:
            arguments = (request.target, request.callsite, request.func, CSD)
            self.replay.run("csd_queue_cpu", *arguments, cpu=CPUS[request.sender])
        after = self.observer.read()
        assert after.health.lost == after.health.unknown_kind == 0
        cells = self.observer.cells(before, after)
        return Replayed(
            totals={func: totals._replace(isolated=0) for func, totals in rise(before, after).items()},
            cells={cell.func: cell for cell in cells},
            targets=by_target(before, after, 0) or (),
            unplaced=after.unplaced,
            hits={hit: requests for hit, requests in after.hits.items() if requests},
        )


def rise(before: RequestSample, after: RequestSample) -> dict[int, Totals]:
    sums: dict[int, Totals] = {}
    for key, late in after.totals.items():
        (func,) = struct.unpack_from("=Q", key)
        early = before.totals.get(key, Totals(0, 0, 0))
        known = sums.get(func, Totals(0, 0, 0))
        sums[func] = Totals(*(total + b - a for total, a, b in zip(known, early, late, strict=True)))
    return {func: totals for func, totals in sums.items() if totals.requests}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.observer.close()


def call(targets: Sequence[int], func: int = SYNC, callsite: int = MANY, sender: int = 0) -> list[Request]:
    return [Request(target, func, callsite, sender) for target in targets]


def test_ascending_targets_are_one_call(rig: Rig) -> None:
    found = rig.run(call([0, 1, 3]), 4)
    assert found.totals == {SYNC: Totals(3, 1, 1)}
    assert (found.cells["do_sync_core"].calls, found.cells["do_sync_core"].broadcasts) == (1, 1)


@pytest.mark.parametrize("again", [[1, 2, 3], [3], [0]], ids=["lower", "equal", "lowest"])
def test_a_target_that_is_not_higher_starts_a_new_call(rig: Rig, again: list[int]) -> None:
    assert rig.run(call([1, 2, 3]) + call(again), 4).totals[SYNC].calls == 2


def test_another_function_starts_a_new_call(rig: Rig) -> None:
    requests = call([0, 1]) + call([2, 3], func=NOTHING) + call([4, 5])
    assert rig.run(requests, 16).totals == {SYNC: Totals(4, 2, 0), NOTHING: Totals(2, 1, 0)}


def test_another_call_site_starts_a_new_call(rig: Rig) -> None:
    requests = call([0, 1]) + call([2, 3], callsite=OTHER_MANY)
    assert rig.run(requests, 4).totals == {SYNC: Totals(4, 2, 0)}


def test_a_call_of_the_control_does_not_continue_another_task_s_call(rig: Rig) -> None:
    """Other processes call membarrier at the same time: a barrier for lower CPUs may come just before ours."""
    comm = Path("/proc/thread-self/comm")
    ours, own_name = "kwctl-012345678", comm.read_text()
    rig.observer.cpus_online = 16
    before = rig.observer.read()
    with rig.observer.controlled(ours):
        for name, targets in (("storm", [0, 1]), (ours, [4, 5]), ("storm", [6]), (ours, [7])):
            comm.write_text(name)
            for target in targets:
                rig.replay.run("csd_queue_cpu", target, MANY, BARRIER, CSD)
    comm.write_text(own_name)
    rig.replay.run("csd_queue_cpu", 9, MANY, BARRIER, CSD)
    after = rig.observer.read()
    assert rig.observer.sent_by_control(before, after) == {"ipi_mb": Totals(3, 2, 0)}
    assert rise(before, after)[BARRIER][:2] == (7, 5)


def test_single_requests_are_never_grouped_even_if_their_targets_rise(rig: Rig) -> None:
    """Expedited RCU asks one CPU after the other, in order: it looks like one call but is not."""
    found = rig.run(call(range(1, 16), func=EXPEDITED, callsite=ONE), 16)
    assert found.totals == {EXPEDITED: Totals(15, 0, 0)}
    assert (found.cells["rcu_exp_handler"].calls, found.cells["rcu_exp_handler"].broadcasts) == (0, 0)


def test_a_single_request_does_not_end_a_call(rig: Rig) -> None:
    """An interrupt between two requests of a call may send a request."""
    requests = [*call([1, 2]), Request(0, EXPEDITED, ONE), Request(0, WAKEUP, ONE), *call([3])]
    assert rig.run(requests, 4).totals == {
        SYNC: Totals(3, 1, 1),
        EXPEDITED: Totals(1, 0, 0),
        WAKEUP: Totals(1, 0, 0),
    }


def test_the_calls_of_two_senders_are_separate(rig: Rig) -> None:
    if len(CPUS) < 2:
        pytest.skip("feature: one CPU has one sender")
    first, second = call([1, 2, 3], sender=0), call([0, 2, 3], sender=1)
    interleaved = [request for pair in zip(first, second, strict=True) for request in pair]
    assert rig.run(interleaved, 4).totals == {SYNC: Totals(6, 2, 2)}


@pytest.mark.parametrize(
    ("cpus_online", "least"), [(2, 1), (3, 2), (4, 3), (10, 9), (11, 9), (12, 10), (16, 14), (22, 19), (101, 90)]
)
def test_a_broadcast_reaches_nine_tenths_of_the_other_cpus(rig: Rig, cpus_online: int, least: int) -> None:
    assert rig.run(call(range(least)), cpus_online).totals == {SYNC: Totals(least, 1, 1)}
    assert rig.run(call(range(cpus_online - 1)), cpus_online).totals == {SYNC: Totals(cpus_online - 1, 1, 1)}
    if least > 1:
        assert rig.run(call(range(least - 1)), cpus_online).totals == {SYNC: Totals(least - 1, 1, 0)}


def test_partial_calls_do_not_add_up_to_a_broadcast(rig: Rig) -> None:
    """Several calls in a row, each for a few CPUs."""
    requests = call(range(8)) + call(range(8, 15), callsite=OTHER_MANY) + call(range(8)) + call([3, 5])
    assert rig.run(requests, 16).totals == {SYNC: Totals(25, 4, 0)}


@pytest.mark.parametrize(("func", "name"), [(BARRIER, "ipi_mb"), (SHOOTDOWN, "flush_tlb_func")])
def test_a_call_that_follows_a_task_is_never_a_broadcast(rig: Rig, func: int, name: str) -> None:
    cell = rig.run(call(range(3), func=func) * 5, 4).cells[name]
    assert (cell.requests, cell.calls, cell.broadcasts) == (15, 5, 0)


def test_remote_wakeups_are_never_calls(rig: Rig) -> None:
    assert rig.run(call(range(15), func=WAKEUP, callsite=ONE), 16).totals == {WAKEUP: Totals(15, 0, 0)}


def is_part_of_a_call(request: Request) -> bool:
    """For some functions the call site is not looked at: the function decides."""
    if request.func in (WAKEUP, EXPEDITED):
        return False
    return request.func == SHOOTDOWN or request.callsite != ONE


def model(requests: Sequence[Request], cpus_online: int) -> dict[int, Totals]:
    """The definition, literally: first all calls with their targets, then those that reach nine tenths."""
    seen = Counter(request.func for request in requests)
    calls: dict[int, list[tuple[int, int, list[int]]]] = {0: [], 1: []}
    for request in filter(is_part_of_a_call, requests):
        target, func, callsite, sender = request
        mine = calls[sender]
        if mine and mine[-1][:2] == (func, callsite) and target > mine[-1][2][-1]:
            mine[-1][2].append(target)
        else:
            mine.append((func, callsite, [target]))
    every = [made for mine in calls.values() for made in mine]
    made = Counter(func for func, _, _ in every)
    wide = (func for func, _, targets in every if 10 * len(targets) >= 9 * (cpus_online - 1))
    broadcasts = Counter(func for func in wide if func != SHOOTDOWN)  # not counted, since it never is one
    return {func: Totals(seen[func], made[func], broadcasts[func]) for func in seen}


funcs = st.sampled_from([SYNC, NOTHING, BARRIER, SHOOTDOWN, EXPEDITED, WAKEUP])
callsites = st.sampled_from([MANY, OTHER_MANY, ONE])
whole = st.integers(0, 2).map(lambda gone: list(range(gone, 15)))
some = st.lists(st.integers(0, 15), min_size=1, max_size=16)
calls_of_a_sender = st.lists(st.tuples(funcs, callsites, whole | some.map(sorted) | some), max_size=5)


@st.composite
def interleaved(draw: st.DrawFn) -> list[Request]:
    """The calls of two senders, shuffled; the order of each sender is kept."""
    queues = []
    for sender in range(len(CPUS)):
        made = draw(calls_of_a_sender)
        queues.append([Request(target, func, site, sender) for func, site, targets in made for target in targets])
    order = draw(st.permutations([sender for sender, queue in enumerate(queues) for _ in queue]))
    return [queues[sender].pop(0) for sender in order]


@settings(max_examples=200)
@given(requests=interleaved(), cpus_online=st.sampled_from([2, 4, 11, 16, 17]))
def test_the_program_groups_as_defined(rig: Rig, requests: list[Request], cpus_online: int) -> None:
    found = rig.run(requests, cpus_online)
    assert found.totals == model(requests, cpus_online)
    by_cpu = Counter(request.target for request in requests)
    assert Counter(dict(enumerate(found.targets))) == by_cpu
    isolated = Counter((request.func, request.target) for request in requests if request.target in ISOLATED)
    assert found.hits == isolated


@pytest.mark.parametrize("func", [SYNC, SHOOTDOWN, EXPEDITED, BARRIER])
def test_every_target_is_counted(rig: Rig, func: int) -> None:
    targets = [*range(103)] * 2 + [64, 100, 102]
    found = rig.run(call(targets, func=func), 103)
    assert found.targets == tuple(Counter(targets)[cpu] for cpu in POSSIBLE)
    (cell,) = found.cells.values()
    assert cell.isolated == sum(target in ISOLATED for target in targets)
    assert cell.isolated_cpus == ISOLATED
    assert sum(found.hits.values()) == cell.isolated
    assert cell.requests == sum(found.targets) == len(targets)


def test_targets_beyond_the_possible_cpus_are_counted_as_unknown(rig: Rig) -> None:
    found = rig.run(call([5, 103, 2000], func=NOTHING), 103)
    assert (found.targets, found.unplaced) == ((), 2)  # no sums, since they would not be whole
    assert found.cells["do_nothing"].requests == 3


def test_without_isolated_cpus_none_is_counted_as_such(rig: Rig) -> None:
    rig.observer.isolated = ()
    try:
        found = rig.run(call(range(103)), 103)
    finally:
        rig.observer.isolated = ISOLATED
    assert (found.hits, found.cells["do_sync_core"].isolated) == ({}, None)
    assert sum(found.targets) == 103
