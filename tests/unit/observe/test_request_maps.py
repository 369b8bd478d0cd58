"""The maps of the request probes as figures, from bytes: no kernel needed."""

import struct
from typing import cast

import pytest

from fake_probe import FakeProbe
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import BANKS, CELL, FREQUENT_FUNCS, HITS, MASK_CALLS, NEAR_CPUS, TARGETS, THIS_CPU
from kickwatch.observe.request_cells import Totals
from kickwatch.observe.request_maps import (
    BankFigures,
    EachCpu,
    MaskCalls,
    clear_targets,
    far_cpus,
    read_far_targets,
    read_hits,
    read_totals,
)

FUNC = 0xFFFFFFFF81002000


def this_cpu(
    *,
    frequent: dict[tuple[int, int], tuple[int, ...]],
    targets: dict[tuple[int, int], int],
    hits: dict[tuple[int, int, int], int] | None = None,
) -> bytes:
    """One CPU's value. `frequent`: figures by (index, bank); `targets`, `hits`: by (bank, CPU), (bank, index, CPU)."""
    words = [0] * (BANKS * TARGETS)
    for (bank, cpu), requests in targets.items():
        words[bank * TARGETS + cpu] = requests
    figures = [0] * (FREQUENT_FUNCS * BANKS * 4)
    for (index, bank), of in frequent.items():
        at = (index * BANKS + bank) * 4
        figures[at : at + 4] = of
    reached = [0] * (BANKS * FREQUENT_FUNCS * NEAR_CPUS)
    for (bank, index, cpu), requests in (hits or {}).items():
        reached[(bank * FREQUENT_FUNCS + index) * NEAR_CPUS + cpu] = requests
    return THIS_CPU.pack(*words, b"call", 0, *figures, 0, 0, 0, 0, *reached)


def probe(**maps: dict[bytes, bytes]) -> BpfObject:
    fake = FakeProbe()
    for name, entries in maps.items():
        for key, value in entries.items():
            fake.map(name).put(key, value)
    return cast("BpfObject", fake)


def array(*values: bytes) -> dict[bytes, bytes]:
    return {struct.pack("=I", index): value for index, value in enumerate(values)}


@pytest.fixture
def each_cpu() -> BpfObject:
    """Two CPUs, with requests for the functions 0, 4 and 5, and to the CPUs 0, 1 and 63; all other words are zero."""
    first = this_cpu(
        frequent={(0, 0): (5, 4, 3, 2), (0, 1): (50, 40, 30, 20), (4, 1): (1, 0, 0, 1)},
        targets={(0, 1): 5, (1, 0): 51, (1, 63): 1, (1, NEAR_CPUS): 9},
        hits={(0, 0, 1): 2, (1, 4, 1): 1, (1, 5, 63): 3},
    )
    second = this_cpu(
        frequent={(0, 1): (500, 400, 300, 200), (5, 1): (7, 7, 0, 0)}, targets={(1, 0): 507}, hits={(1, 4, 1): 10}
    )
    return probe(each_cpu=array(first, second))


def test_frequent_functions_are_summed_over_cpus_by_bank(each_cpu: BpfObject) -> None:
    keys = {0: b"zero", 1: b"one", 4: b"four", 5: b"last"}
    assert EachCpu(each_cpu, 0, 2).totals(keys) == {b"zero": Totals(5, 4, 3, 2)}
    assert EachCpu(each_cpu, 1, 2).totals(keys) == {
        b"zero": Totals(550, 440, 330, 220),
        b"four": Totals(1, 0, 0, 1),
        b"last": Totals(7, 7, 0, 0),
    }


def test_targets_are_summed_over_cpus_by_bank(each_cpu: BpfObject) -> None:
    assert EachCpu(each_cpu, 0, 2).targets(2) == [0, 5]
    assert EachCpu(each_cpu, 1, 2).targets(2) == [558, 0]
    assert EachCpu(each_cpu, 1, 2).targets(200) == [558, *[0] * 62, 1]
    assert [EachCpu(each_cpu, bank, 2).unplaced() for bank in (0, 1)] == [0, 9]


def test_hits_of_frequent_functions_are_those_of_isolated_cpus(each_cpu: BpfObject) -> None:
    funcs = (0xA, 0, 0, 0, 0xE, 0xF)
    assert EachCpu(each_cpu, 0, 2).hits(funcs, [1, 63, 70]) == {(0xA, 1): 2}
    assert EachCpu(each_cpu, 1, 2).hits(funcs, [1, 63, 70]) == {(0xE, 1): 11, (0xF, 63): 3}
    assert EachCpu(each_cpu, 1, 2).hits(funcs, [2]) == {}


def test_cells_have_both_banks_in_one_value() -> None:
    cells = {b"a": CELL.pack(1, 2, 3, 4, 5, 6, 7, 8), b"b": CELL.pack(0, 0, 0, 0, 9, 0, 0, 0)}
    assert read_totals(probe(cells=cells), 0) == {b"a": Totals(1, 2, 3, 4)}
    assert read_totals(probe(cells=cells), 1) == {b"a": Totals(5, 6, 7, 8), b"b": Totals(9, 0, 0, 0)}


def test_hits_are_by_function_and_cpu() -> None:
    hits = {struct.pack("=QII", FUNC, cpu, 0): HITS.pack(cpu, 10) for cpu in (0, 3)}
    assert read_hits(probe(hits=hits), 0) == {(FUNC, 3): 3}
    assert read_hits(probe(hits=hits), 1) == {(FUNC, 0): 10, (FUNC, 3): 10}


@pytest.mark.parametrize(("cpus", "far"), [(1, 0), (64, 0), (65, 1), (512, 448)])
def test_cpus_from_64_on_are_in_a_separate_map(cpus: int, far: int) -> None:
    values = array(*(struct.pack("=2Q", index, 1000) for index in range(BANKS * max(1, far))))
    assert far_cpus(cpus) == far
    assert read_far_targets(probe(far_targets=values), 0, cpus) == [index + 1000 for index in range(far)]
    assert read_far_targets(probe(far_targets=values), 1, cpus) == [far + index + 1000 for index in range(far)]


def test_the_excess_is_what_has_no_target() -> None:
    assert BankFigures({b"a": Totals(5, 0, 0), b"b": Totals(2, 0, 0)}, [3, 1], 2).excess == 1


def mask_key(mask: int) -> bytes:
    """As on a machine with up to 128 CPUs."""
    return struct.pack("=QQQ", FUNC, mask & (1 << 64) - 1, mask >> 64)


def test_masks_of_calls_are_walked_and_added_to_single_requests() -> None:
    masks = {
        mask_key(0b1110): MASK_CALLS.pack(0, 7),
        mask_key(1 << 100 | 0b10): MASK_CALLS.pack(5, 2),
        mask_key(0b1): MASK_CALLS.pack(1, 0),
    }
    calls = MaskCalls()
    calls.follow(probe(masks=masks), 1, isolated=[2, 100])
    single = BankFigures({}, [1] * 128, 3, {(FUNC, 2): 1})
    found = calls.added_to(single)
    assert found.unplaced == 3
    assert {cpu: requests for cpu, requests in enumerate(found.targets) if requests != 1} == {1: 10, 2: 8, 3: 8, 100: 3}
    assert found.hits == {(FUNC, 2): 8, (FUNC, 100): 2}
    assert list(single.targets) == [1] * 128


def test_calls_that_were_added_before_are_not_added_again() -> None:
    calls = MaskCalls()
    for seen in (4, 4, 9):
        calls.follow(probe(masks={mask_key(0b10): MASK_CALLS.pack(seen, 0)}), 0, isolated=[])
    assert list(calls.added_to(BankFigures({}, [0, 0])).targets) == [0, 9]


def test_cleared_targets_are_zero_for_every_cpu() -> None:
    full = probe(each_cpu=array(b"\1" * THIS_CPU.size, b"\1" * THIS_CPU.size), far_targets=array(b"\1" * 8))
    clear_targets(full, 2)
    assert EachCpu(full, 1, 2).targets(2) == [0, 0]
    assert full.map("far_targets").entries(range(1)) == [b"\1" * 8]  # of two CPUs none is far
