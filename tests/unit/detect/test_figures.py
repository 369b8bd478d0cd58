"""Windows into figures: merging, subtraction of the quiet rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from builders import TLB, kick, trial, wait, window
from kickwatch.detect.figures import (
    above_quiet,
    creation_broadcasts,
    known_creation_broadcasts,
    longest_wait_ns,
    merge_cells,
    merge_windows,
    quiet_rate_hz,
    waits_known,
    zero_is_certain,
)
from kickwatch.model import CanaryBatch, ContentionRung, Control, Interrupts, IpiRung, Observers, Origin


def test_merging_windows_adds_everything() -> None:
    one = window("quiet", TLB, waits=(wait(2),), wait_histogram_ns=(1, 2), lost_events=1)
    other = window("quiet", TLB, kick(4), waits=(wait(3),), wait_histogram_ns=(1, 2, 3))
    both = merge_windows([one, other])
    assert both.duration_ns == 20_000_000_000
    assert both.interrupts == Interrupts(cal=6000, tlb=2000, res=4000)
    assert [(cell.reason, cell.requests) for cell in both.cells] == [
        ("flush_tlb_func", 2400),
        ("kick_all_cpus_sync", 12),
    ]
    assert (both.waits[0].waits, both.waits[0].wait_ns, both.waits[0].max_wait_ns) == (5, 30_000_000, 9_000_000)
    assert both.wait_histogram_ns == (2, 4, 3)
    assert both.lost_events == 1
    assert (both.lost_requests, both.lost_waits) == (None, None)
    told = replace(one, lost_requests=2, lost_waits=3)
    assert (merge_windows([told, told]).lost_requests, merge_windows([told, told]).lost_waits) == (4, 6)
    assert merge_windows([told, one]).lost_requests is None


def test_a_longest_wait_is_known_only_if_no_hidden_one_may_be_longer() -> None:
    known, alone = wait(2), replace(wait(1), holder="b", wait_ns=42_000_000, max_wait_ns=0)
    hidden = replace(wait(3), holder="c", max_wait_ns=0)  # 18 ms in total, the longest between 6 and 18 ms
    assert longest_wait_ns([]) == 0
    assert longest_wait_ns([known]) == 9_000_000
    assert longest_wait_ns([alone]) == 42_000_000
    assert longest_wait_ns([hidden]) is None
    assert longest_wait_ns([known, hidden]) is None, "the hidden one may be longer than 9 ms"
    assert longest_wait_ns([alone, hidden]) == 42_000_000


def test_a_missing_interrupt_row_stays_missing() -> None:
    arm = window("quiet", interrupts=Interrupts(cal=5, tlb=None, res=1))
    assert merge_windows([arm, arm]).interrupts == Interrupts(cal=10, tlb=None, res=2)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_merging_cells_keeps_the_sum(requests: list[int]) -> None:
    cells = [replace(TLB, requests=count) for count in requests]
    (merged,) = merge_cells(cells)
    assert merged.requests == sum(requests)


def test_the_quiet_rate_is_subtracted_by_time() -> None:
    one = trial(quiet=window("quiet", duration_ns=5_000_000_000))
    assert quiet_rate_hz(one, 100) == 20
    assert above_quiet(one, 1200, 100) == 1000


def test_only_the_creation_path_counts() -> None:
    assert creation_broadcasts([TLB, kick(5)]) == 5


def test_broadcasts_that_may_all_be_lost_are_not_known_to_be_none() -> None:
    lossy = trial(churn=window("churn", TLB, lost_events=8, lost_requests=8))
    assert known_creation_broadcasts(trial()) == 0
    assert known_creation_broadcasts(lossy) is None
    assert known_creation_broadcasts(replace(lossy, churn=replace(lossy.churn, cells=(kick(5),)))) == 5


@pytest.mark.parametrize(("ipis", "known"), [(IpiRung.KPROBE, False), (IpiRung.CSD, True)])
def test_what_silences_the_kprobes_of_requests_silences_those_of_waits(ipis: IpiRung, known: bool) -> None:
    silenced = trial(
        observers=Observers(ipis=ipis, contention=ContentionRung.KPROBE),
        control=Control(passed=False, detail="0 of 23"),
    )
    assert waits_known(silenced) is known
    assert waits_known(replace(silenced, control=Control(passed=True, detail="23 of 23")))


def test_the_zero_of_a_batch_that_lost_a_request_is_not_certain() -> None:
    batch = CanaryBatch(memcgs=100, duration_ns=1, interrupts=Interrupts(), cells=(TLB,))
    assert zero_is_certain(batch)
    assert not zero_is_certain(replace(batch, lost_events=1))
    nameless = replace(kick(1), origin=Origin.UNKNOWN, stack=())
    assert zero_is_certain(replace(batch, stackless_events=1))  # the request was no broadcast
    assert zero_is_certain(replace(batch, cells=(nameless,)))  # a worker's: its stack is there and explains nothing
    assert not zero_is_certain(replace(batch, cells=(nameless,), stackless_events=1))
