"""The return address at a kprobe is a frame where unwinding loses it, and is not shown twice where it does not."""

import struct
from typing import TYPE_CHECKING, cast

import pytest

from fake_probe import FakeProbe
from kickwatch.model import Origin, Path
from kickwatch.observe.contention import ContentionSample, WaitTotals
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.layouts import CELL_KEY, EXAMPLE, WAIT_KEY
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.readings import read_stack
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

SYMBOLS = Symbols.parse("""\
1000 T smp_call_function_single
1800 T smp_call_function_single_async
2000 t smp_call_function_many_cond
3000 t remote_function
4000 t task_function_call
4800 t perf_cgroup_attach
5000 t cgroup_migrate_execute
5800 t cgroup_attach_task
6000 t __mutex_lock.constprop.0
6800 t mutex_lock
7000 t kmem_cache_create_usercopy
7800 t __kretprobe_trampoline
8000 t rcu_barrier_handler
8800 t rcu_barrier
9000 t end
""")
PROBED = ("smp_call_function_single",)
ENTRY, CALLER, OUTER, OUTERMOST = 0x1001, 0x4010, 0x4810, 0x5010
WHOLE = ("smp_call_function_single", "task_function_call", "perf_cgroup_attach", "cgroup_migrate_execute")
SLAB_MUTEX = 0xFF00


def with_stack(*addresses: int) -> FakeProbe:
    probe = FakeProbe()
    probe.map("stacks").put(struct.pack("=I", 7), struct.pack("=48Q", *addresses, *[0] * (48 - len(addresses))))
    return probe


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param((ENTRY, OUTER, OUTERMOST), id="frame pointers lose the caller"),
        pytest.param((ENTRY, CALLER, OUTER, OUTERMOST), id="ORC has the caller"),
        pytest.param((CALLER, OUTER, OUTERMOST), id="ORC, taken again without one frame"),
        pytest.param((OUTER, OUTERMOST), id="taken again, without the caller"),
    ],
)
def test_the_caller_is_in_the_stack_once(taken: tuple[int, ...]) -> None:
    found = read_stack(with_stack(*taken).map("stacks"), 7, SYMBOLS, CALLER, PROBED)
    assert found == (WHOLE if taken[0] == ENTRY else WHOLE[1:])


def test_a_function_that_calls_itself_keeps_both_frames() -> None:
    probe = with_stack(ENTRY, CALLER, CALLER, OUTER)
    found = read_stack(probe.map("stacks"), 7, SYMBOLS, CALLER, PROBED)
    assert found == ("smp_call_function_single", *["task_function_call"] * 2, "perf_cgroup_attach")


def test_a_stack_of_one_frame_gets_its_caller() -> None:
    assert read_stack(with_stack(ENTRY).map("stacks"), 7, SYMBOLS, CALLER, PROBED) == WHOLE[:2]


def test_a_trampoline_in_place_of_the_return_address_is_no_frame() -> None:
    """A probe on the function's return, of another tool, has put it there."""
    probe = with_stack(ENTRY, OUTER)
    assert read_stack(probe.map("stacks"), 7, SYMBOLS, 0x7801, PROBED) == (WHOLE[0], WHOLE[2])


def test_a_tracepoint_has_no_return_address() -> None:
    probe = with_stack(ENTRY, OUTER)
    assert read_stack(probe.map("stacks"), 7, SYMBOLS) == (WHOLE[0], WHOLE[2])


def observer(probe: FakeProbe) -> KprobeObserver:
    return KprobeObserver(cast("BpfObject", probe), SYMBOLS, 2, online=[0, 1], possible=[0, 1])


def test_perf_is_named_though_frame_pointers_lose_the_caller() -> None:
    """4.19 with frame pointers: without the caller these requests looked like the creation path's (cgroup, create)."""
    probe = with_stack(ENTRY, 0x5010, 0x5810)  # cgroup_migrate_execute < cgroup_attach_task
    lost, named = (CELL_KEY.pack(0x3000, 7, 0, caller) for caller in (0, OUTER))
    seen = {
        key: observer(probe).cells(RequestSample({}), RequestSample({key: Totals(1, 0, 0)}))[0] for key in (lost, named)
    }
    assert "perf_cgroup_attach" not in seen[lost].stack
    assert seen[named].stack[:3] == ("smp_call_function_single", "perf_cgroup_attach", "cgroup_migrate_execute")
    assert (seen[lost].origin, seen[lost].path) == (Origin.CGROUP, Path.CREATE)
    assert seen[named].origin == Origin.PERF  # not on the creation path, whatever its path


def test_two_callers_with_the_same_stack_are_two_keys() -> None:
    """Where the stack lacks the caller, only the return address distinguishes them."""
    probe = with_stack(ENTRY, OUTERMOST)
    totals = {CELL_KEY.pack(0x3000, 7, 0, caller): Totals(1, 0, 0) for caller in (CALLER, OUTER)}
    names = observer(probe).names
    assert {names.name(key, SYMBOLS).stack[1] for key in totals} == {"task_function_call", "perf_cgroup_attach"}


def test_the_example_of_a_certain_function_has_its_caller() -> None:
    """rcu_barrier vanished from the stacks of arm64."""
    probe = with_stack(ENTRY, OUTERMOST)
    probe.map("certain_funcs").put(struct.pack("=Q", 0x8000), EXAMPLE.pack(0x8810, 8, 0))
    totals = {CELL_KEY.pack(0x8000, 0, 0, 0): Totals(3, 0, 0)}
    (cell,) = observer(probe).cells(RequestSample({}), RequestSample(totals))
    assert cell.stack == ("smp_call_function_single", "rcu_barrier", "cgroup_migrate_execute")


def test_slab_mutex_is_recognised_by_a_caller_that_frame_pointers_lose() -> None:
    """mutex_lock jumps to its slow path: the taker is the direct caller of the probed function."""
    probe = with_stack(0x6001, OUTERMOST)
    waits = MutexObserver(cast("BpfObject", probe), SYMBOLS, 0, 0)
    probe.map("waits").put(WAIT_KEY.pack(SLAB_MUTEX, 0, 7, 0, b"cat"), bytes(24))
    assert waits.learn() == 0
    key = WAIT_KEY.pack(SLAB_MUTEX, 0x7010, 7, 0, b"cat")
    waits.slab_mutex = SLAB_MUTEX
    (wait,) = waits.waits(ContentionSample({}), ContentionSample({key: WaitTotals(1, 5, 5)}))
    assert wait.stack == ("__mutex_lock.constprop.0", "kmem_cache_create_usercopy", "cgroup_migrate_execute")
    assert wait.origin == Origin.SLAB
