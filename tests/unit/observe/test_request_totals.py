"""From the totals of a request probe to cells: no kernel needed, the contents of the maps are given here."""

import struct
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_probe import FakeProbe
from kickwatch.errors import ObserveError
from kickwatch.model import Cell
from kickwatch.observe.csd import CsdObserver, many_ranges
from kickwatch.observe.frequent import KnownFuncs
from kickwatch.observe.layouts import CELLS_CONFIG, EXAMPLE
from kickwatch.observe.losses import Lost
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestCounts, RequestSample, Totals, by_target, fell
from kickwatch.observe.requests import broadcast_targets
from kickwatch.observe.symbols import Symbols

if TYPE_CHECKING:
    from kickwatch.observe.bpf import BpfObject

MANY = "1000 t smp_call_function_many_cond\n1800 t end_of_it\n"
KALLSYMS = (
    MANY
    + """\
2000 t flush_tlb_func.cold
3000 t flush_tlb_func
4000 t sched_ttwu_pending
5000 t do_sync_core
6000 t mem_cgroup_write
7000 t on_each_cpu_cond_mask
8000 t ipi_mb
9000 t end
"""
)
NO_STACK = -17


def observer(kallsyms: str = KALLSYMS, cpus_online: int = 4) -> tuple[CsdObserver, FakeProbe]:
    probe = FakeProbe()
    return CsdObserver(cast("BpfObject", probe), Symbols.parse(kallsyms), cpus_online), probe


def key(func: int, stack: int = NO_STACK, flags: int = 1) -> bytes:
    return struct.pack("=QiI8x", func, stack, flags)


def put_stack(probe: FakeProbe, stack_id: int, *addresses: int) -> None:
    frames = struct.pack("=48Q", *addresses, *[0] * (48 - len(addresses)))
    probe.map("stacks").put(struct.pack("=I", stack_id), frames)


def cells_of(observed: CsdObserver, totals: dict[bytes, Totals]) -> dict[str, Cell]:
    return {cell.func: cell for cell in observed.cells(RequestSample({}), RequestSample(totals))}


@given(st.integers(1, 4096))
def test_a_broadcast_needs_nine_tenths_of_the_other_cpus(cpus_online: int) -> None:
    least = broadcast_targets(cpus_online)
    assert 10 * least >= 9 * (cpus_online - 1)
    assert least == 1 or 10 * (least - 1) < 9 * (cpus_online - 1)


def test_the_function_for_multi_cpu_calls_is_found_with_its_parts() -> None:
    text = "1000 t smp_call_function_many_cond.constprop.0\n1800 T smp_call_function_many\n"
    cold = "1900 T __smp_call_single_queue\n9000 t smp_call_function_many_cond.constprop.0.cold\n9100 t end\n"
    assert many_ranges(Symbols.parse(text + cold)) == [(0x1000, 0x1800), (0x9000, 0x9100)]


def test_an_inlined_function_is_an_error_even_with_its_wrapper() -> None:
    text = "1800 T smp_call_function_many\n1900 T __smp_call_single_queue\n2000 T end\n"
    with pytest.raises(ObserveError, match="smp_call_function_many_cond"):
        many_ranges(Symbols.parse(text))


def test_before_5_8_the_older_name_counts() -> None:
    text = "1800 T smp_call_function_many\n1900 t generic_exec_single\n"
    assert many_ranges(Symbols.parse(text)) == [(0x1800, 0x1900)]


def test_more_pieces_than_the_probe_has_room_for_are_an_error() -> None:
    text = "".join(f"{0x1000 * n:x} t smp_call_function_many_cond.isra.{n}\n" for n in range(1, 6))
    with pytest.raises(ObserveError, match="5 pieces"):
        many_ranges(Symbols.parse(text))


def test_without_the_function_for_multi_cpu_calls_there_is_no_observer() -> None:
    with pytest.raises(ObserveError):
        observer("3000 t flush_tlb_func\n")


def test_the_configuration_has_the_form_that_the_probe_reads() -> None:
    """Frequent functions are found by their entry, not by the part that rarely runs."""
    observed, probe = observer(cpus_online=16)
    observed.set_slab_mutex(0xFFFF)
    value = probe.map("config").get(struct.pack("=I", 0))
    assert value is not None
    assert struct.unpack_from("=6QIIIIQ", value) == (0x3000, 0, 0x4000, 0, 0, 0, 0, 0, 0, 14, 0xFFFF)
    assert struct.unpack_from("=8Q", value, CELLS_CONFIG.size) == (0x1000, 0, 0, 0, 0x1800, 0, 0, 0)


def test_calls_that_follow_a_task_are_counted_without_broadcasts() -> None:
    observed, _ = observer()
    cells = cells_of(observed, {key(0x8000): Totals(9, 3, 3), key(0x5000): Totals(6, 2, 2)})
    assert (cells["ipi_mb"].calls, cells["ipi_mb"].broadcasts) == (3, 0)
    assert (cells["do_sync_core"].calls, cells["do_sync_core"].broadcasts) == (2, 2)


def test_creation_broadcasts_follow_from_the_stack() -> None:
    observed, probe = observer()
    put_stack(probe, 7, 0x7010, 0x6010)
    totals = {key(0x5000, 7): Totals(6, 2, 2), key(0x5000): Totals(3, 1, 1), key(0x8000, 7): Totals(3, 1, 1)}
    assert observed.creation_broadcasts(RequestSample(totals)) == 2


def test_what_a_probe_counted_in_five_figures() -> None:
    """What has no origin may be the creation path's, so it is not from elsewhere. `ipi_mb` is, whoever sends it."""
    observed, probe = observer()
    put_stack(probe, 7, 0x7010, 0x6010)
    put_stack(probe, 8, 0x7010)
    creation = {key(0x5000, 7): Totals(6, 2, 2), key(0x8000, 7): Totals(3, 1, 1)}
    unknown, elsewhere = {key(0x9000, 8): Totals(9, 3, 3)}, {key(0x3000): Totals(30, 10, 10)}
    sample = RequestSample(creation | unknown | elsewhere, Health(lost=2, stackless=40, unknown_kind=3, unmatched=50))
    assert observed.counts(sample) == RequestCounts(created=2, broadcasts=5, elsewhere=33, requests=48, lost=5)


def test_a_stack_that_could_not_be_read_is_read_again_later() -> None:
    observed, probe = observer()
    totals = {key(0x5000, 7): Totals(3, 1, 1)}
    assert cells_of(observed, totals)["do_sync_core"].stack == ()
    put_stack(probe, 7, 0x7010, 0x6010)
    assert cells_of(observed, totals)["do_sync_core"].stack == ("on_each_cpu_cond_mask", "mem_cgroup_write")


@pytest.mark.parametrize(
    ("before", "after", "emptied"),
    [
        ({}, {b"a": (1, 0)}, False),
        ({b"a": (1, 0)}, {b"a": (1, 0)}, False),
        ({b"a": (1, 0)}, {b"a": (2, 0), b"b": (1, 0)}, False),
        ({b"a": (2, 0)}, {b"a": (1, 0)}, True),
        ({b"a": (1, 0)}, {b"b": (1, 0)}, True),
        ({b"a": (1, 0)}, {}, True),
    ],
)
def test_totals_that_fell_show_that_the_maps_were_emptied(
    before: dict[bytes, tuple[int, ...]], after: dict[bytes, tuple[int, ...]], *, emptied: bool
) -> None:
    assert fell(before, after) is emptied


def sample_of(*targets: int, unplaced: int = 0) -> RequestSample:
    return RequestSample({}, targets=targets, unplaced=unplaced)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (sample_of(1, 2, 3, 0), sample_of(1, 5, 3, 0), (0, 3)),  # CPU 1 is the last one that is online
        (sample_of(1, 2, 3, 0), sample_of(2, 5, 7, 0), (1, 3, 4)),  # CPU 2 went offline meanwhile
        (sample_of(0, 0, 0, 0), sample_of(0, 0, 0, 0), (0, 0)),
        (RequestSample({}), sample_of(4, 5), (4, 5)),
        (sample_of(1, 2), sample_of(0, 2), None),  # emptied
        (sample_of(1, 2, unplaced=3), sample_of(2, 2, unplaced=3), (1, 0)),
        (sample_of(1, 2, unplaced=3), sample_of(2, 2, unplaced=4), None),
        (RequestSample({}), RequestSample({}), None),  # not counted
    ],
)
def test_requests_by_target(before: RequestSample, after: RequestSample, found: tuple[int, ...] | None) -> None:
    assert by_target(before, after, 1) == found


def test_requests_to_isolated_cpus_have_their_cpus() -> None:
    observed, _ = observer()
    observed.isolated = (2, 3)
    before = RequestSample({key(0x5000): Totals(1, 1, 1, 1)}, hits={(0x5000, 2): 1, (0x8000, 3): 5})
    totals = {key(0x5000): Totals(4, 2, 2, 3), key(0x8000): Totals(6, 0, 0, 0)}
    cells = observed.cells(before, RequestSample(totals, hits={(0x5000, 2): 2, (0x5000, 3): 1, (0x8000, 3): 5}))
    found = {cell.func: (cell.isolated, cell.isolated_cpus) for cell in cells}
    assert found == {"do_sync_core": (2, (2, 3)), "ipi_mb": (0, ())}


def test_targets_that_cannot_be_counted_are_losses() -> None:
    observed, _ = observer()
    assert observed.losses == []
    observed.isolated = (3, 1024, 1030)
    observed._unplaced = 7
    beyond, unplaced = observed.losses
    assert (beyond.lost, unplaced.lost) == (Lost.FAR_REQUESTS, Lost.TARGETS)
    assert "CPUs from 1024 on are isolated" in beyond.what
    observed._unplaced = 8
    assert observed.losses == [beyond, unplaced], "the same loss: the daemon reports each text once"


def test_without_isolated_cpus_there_is_no_such_figure() -> None:
    observed, _ = observer()
    (cell,) = observed.cells(RequestSample({}), RequestSample({key(0x5000): Totals(4, 2, 2)}))
    assert (cell.isolated, cell.isolated_cpus) == (None, ())


def test_a_frequent_function_has_an_example_once_one_was_taken() -> None:
    observed, probe = observer(KALLSYMS.replace("do_sync_core", "rcu_exp_handler"))
    observed.funcs.await_examples(cast("BpfObject", probe))
    totals = {key(0x5000, 0, 0): Totals(3, 0, 0)}
    assert cells_of(observed, totals)["rcu_exp_handler"].stack == ()
    put_stack(probe, 6, 0x7010, 0x6010)
    probe.map("certain_funcs").put(struct.pack("=Q", 0x5000), EXAMPLE.pack(0, 7, 0))
    (cell,) = observed.cells(RequestSample({}), RequestSample(totals))
    assert cell.stack == ("on_each_cpu_cond_mask", "mem_cgroup_write")
    assert (cell.singles, cell.calls) == (3, 0)


def test_frequent_functions_have_their_order_and_certain_ones_an_example() -> None:
    names = ("flush_tlb_func", "nohz_csd_func", "rcu_barrier_handler", "sync_sched_exp_handler", "ipi_mb", "do_nothing")
    funcs = KnownFuncs.of(Symbols.parse("".join(f"{0x1000 * n:x} t {name}\n" for n, name in enumerate(names, 1))))
    assert funcs.frequent == (0x1000, 0, 0x2000, 0, 0x3000, 0)
    assert set(funcs.certain) == {0x3000, 0x4000, 0x5000}
    assert funcs.keys == {0: key(0x1000, 0, 0), 2: key(0x2000, 0, 0), 4: key(0x3000, 0, 0)}


@pytest.mark.parametrize(("patches_count", "shown"), [(True, "cpuset_css_online"), (False, "perf_cgroup_css_online")])
def test_a_stack_that_does_not_count_is_not_shown_where_another_does(*, patches_count: bool, shown: str) -> None:
    """On arm64 static keys and the fault of 2017 have one reason, and passive mode counts the fault alone."""
    names = "kick_all_cpus_sync static_key_slow_inc arch_jump_label_transform_apply cpuset_css_online"
    kallsyms = "".join(
        f"{at:x} t {name}\n"
        for at, name in enumerate([*names.split(), "perf_cgroup_css_online", "cgroup_mkdir", "do_nothing", "end"], 0x10)
    )
    at = {line.split()[2]: int(line.split()[0], 16) for line in kallsyms.splitlines()}
    observed, probe = observer(MANY + kallsyms)
    kick, outer = at["kick_all_cpus_sync"], at["cgroup_mkdir"]
    patching = (at["arch_jump_label_transform_apply"], at["static_key_slow_inc"], at["cpuset_css_online"])
    put_stack(probe, 1, 0x1000, kick, *patching, outer)
    put_stack(probe, 2, 0x1000, kick, at["perf_cgroup_css_online"], outer)
    flips, kicks = (key(at["do_nothing"], stack) for stack in (1, 2))
    totals = RequestSample({flips: Totals(18, 6, 6), kicks: Totals(3, 1, 1)})
    (cell,) = observed.cells(RequestSample({}), totals, patches_count=patches_count)
    assert (cell.reason, cell.broadcasts, cell.patches) == ("kick_all_cpus_sync", 7, 6)
    assert shown in cell.stack
