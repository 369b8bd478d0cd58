"""The request probe and known events: a prime number must be counted exactly, by reason, kind and call."""

import asyncio
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kickwatch.model import Cell, Origin, WindowKind
from kickwatch.native.driver import Helper
from kickwatch.observe import requests
from kickwatch.observe.bpf_calls import BpfCalls
from kickwatch.observe.control import positive_control
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.layouts import CELL, EXAMPLE
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.request_cells import RequestSample, fell
from kickwatch.observe.symbols import Symbols
from refused import refused
from replay import Replay
from shootdowns import shootdowns

pytestmark = pytest.mark.kernel


@pytest.fixture
def tracepoint(tracefs: Path) -> Iterator[Path]:
    """The switch of a tracepoint in a tracefs instance of the test; armed once before, which completes its set-up."""
    instance = tracefs / "instances" / f"kickwatch-test-{os.getpid()}"  # what a killed run left has another name
    instance.mkdir()
    try:
        switch = instance / "events/sched/sched_switch/enable"
        toggle(switch, 1)
        yield switch
    finally:
        instance.rmdir()


def toggle(switch: Path, times: int) -> None:
    for _ in range(times):
        switch.write_text("1")
        switch.write_text("0")


async def cells_during(observatory: Observatory, act: Callable[[], object]) -> tuple[Cell, ...]:
    before = await observatory.sample()
    await asyncio.to_thread(act)
    after = await observatory.sample()
    window = observatory.window(WindowKind.CHURN, before, after)
    assert window.lost_events == refused(before, after)
    return window.cells


async def toggled(observatory: Observatory, tracepoint: Path, times: int) -> Cell:
    """The cell of the toggles. Others of this node may patch code meanwhile, but not for tracing."""
    cells = await cells_during(observatory, lambda: toggle(tracepoint, times))
    (cell,) = [cell for cell in cells if (cell.func, cell.origin) == ("do_sync_core", Origin.TRACING)]
    return cell


async def test_23_toggles_send_23_times_the_requests_of_one(observatory: Observatory, tracepoint: Path) -> None:
    one = await toggled(observatory, tracepoint, 1)
    many = await toggled(observatory, tracepoint, 23)
    again = await toggled(observatory, tracepoint, 1)
    assert one.requests == again.requests > 0
    assert many.requests == 23 * one.requests
    assert many.calls == many.broadcasts == 23 * one.calls
    assert many.calls * (observatory.cpus_online - 1) == many.requests
    assert not many.on_creation_path


@pytest.mark.usefixtures("alone")
async def test_the_rise_of_cal_agrees_with_the_requests_on_an_idle_machine(
    observatory: Observatory, tracepoint: Path
) -> None:
    """CAL counts received interrupts, and under load several requests share one: hence the best of several tries."""
    ratios = []
    for _ in range(8):
        before = await observatory.sample()
        await asyncio.to_thread(toggle, tracepoint, 40)
        window = observatory.window(WindowKind.CHURN, before, await observatory.sample())
        assert window.interrupts.cal is not None
        ratios.append(window.interrupts.cal / sum(cell.requests for cell in window.cells))
        if 0.95 <= ratios[-1] <= 1.05:
            return
        await asyncio.sleep(1)
    pytest.fail(f"CAL / requests: {ratios}")


async def test_membarriers_are_counted_by_call_and_by_kind(observatory: Observatory) -> None:
    cpus = ",".join(str(cpu) for cpu in range(observatory.cpus_online))
    async with Helper(["barriers", "23", "7", cpus]) as helper:
        before = await observatory.sample()
        await helper.ask("many", 20)
        between = await observatory.sample()
        await helper.ask("single", 20)
        after = await observatory.sample()
    many = {cell.func: cell for cell in observatory.window(WindowKind.CONTROL, before, between).cells}
    single = {cell.func: cell for cell in observatory.window(WindowKind.CONTROL, between, after).cells}
    assert (many["ipi_mb"].calls, many["ipi_mb"].broadcasts) == (23, 0)
    assert many["ipi_mb"].requests == 23 * (observatory.cpus_online - 1)
    assert "ipi_rseq" not in many
    assert (single["ipi_rseq"].requests, single["ipi_rseq"].calls, single["ipi_rseq"].broadcasts) == (7, 0, 0)


@pytest.mark.parametrize("answer", [-errno.EINVAL, -errno.ENOSPC])
async def test_a_kernel_that_reads_no_maps_in_batches_counts_the_same(
    monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """EINVAL is what kernels before 5.6 answer; the calls instead, entry by entry, are this kernel's."""
    refusals: list[int] = []

    def refuse(*_: object, **__: object) -> int:
        refusals.append(answer)
        return answer

    monkeypatch.setattr(BpfCalls, "lookup_batch", refuse)
    observatory = await Observatory.open()
    try:
        assert (await positive_control(observatory)).passed
        assert refusals
    finally:
        observatory.close()


SHOOTDOWNS = shootdowns(1000, "time.sleep(0.0005)")


async def test_busy_reasons_are_counted_without_a_stack(observatory: Observatory) -> None:
    if observatory.cpus_online < 2:
        pytest.skip("a TLB shootdown needs a second CPU")
    load = [sys.executable, "-c", SHOOTDOWNS]
    cells = await cells_during(observatory, lambda: subprocess.run(load, check=True))
    (shootdowns_counted,) = [cell for cell in cells if cell.func == "flush_tlb_func"]
    assert shootdowns_counted.requests > 100
    assert shootdowns_counted.calls > 100
    assert shootdowns_counted.broadcasts == 0
    assert shootdowns_counted.stack == ()
    assert shootdowns_counted.origin is Origin.MM_USER


# The caller of the program's caller when an event is synthetic: the kernel's function for test runs.
TEST_RUN = "bpf_prog_test_run_raw_tp"
SITE, FUNC = 0x1000, 0x2000


@pytest.fixture
async def names() -> Symbols:
    symbols = await Symbols.load(Path("/proc"))
    if not symbols.ranges(TEST_RUN):
        pytest.skip(f"feature: no {TEST_RUN} (5.10 and later)")
    return symbols


def learnt_kind(symbols: Symbols) -> int:
    """What the probe learns about a call site from one event that `TEST_RUN` sends."""
    observer = CsdObserver.load(symbols, 2)
    try:
        Replay(observer.probe).run("csd_queue_cpu", 1, SITE, FUNC, 0)
        assert observer.read().health.unknown_kind == 0
        return int.from_bytes(observer.probe.map("callsites").get(struct.pack("=Q", SITE)) or b"", sys.byteorder)
    finally:
        observer.close()


@pytest.mark.parametrize("place", range(4))
def test_a_sender_in_any_of_four_pieces_of_text_makes_multi_cpu_calls(names: Symbols, place: int) -> None:
    (start, end), *_ = names.ranges(TEST_RUN)
    starts = [0x1000, 0x2000, 0x3000, 0x4000]
    starts[place] = start
    lines = [f"{start:x} t smp_call_function_many_cond.constprop.{n}\n" for n, start in enumerate(starts)]
    ends = [f"{(start + 0x800 if start < 0x5000 else end):x} t end{n}\n" for n, start in enumerate(starts)]
    assert learnt_kind(Symbols.parse("".join(lines + ends))) == 2


def test_a_sender_in_other_text_makes_single_requests(names: Symbols) -> None:
    assert learnt_kind(Symbols.parse("1000 t smp_call_function_many_cond\n2000 t end\n")) == 1


def test_full_maps_are_emptied_between_windows() -> None:
    symbols = Symbols.parse("1000 t smp_call_function_many_cond\n2000 t rcu_exp_handler\n3000 t end\n")
    observer = CsdObserver.load(symbols, 2)
    try:
        replay = Replay(observer.probe)
        replay.run("csd_queue_cpu", 1, SITE, 0x2000, 0)
        replay.run("csd_queue_cpu", 1, SITE, FUNC + 1, 0)
        examples, cells = observer.probe.map("certain_funcs"), observer.probe.map("cells")
        assert examples.get(struct.pack("=Q", 0x2000)) != bytes(EXAMPLE.size)
        assert not observer.recycle_if_full()
        before = observer.read()
        assert sum(totals.requests for totals in before.totals.values()) == 2
        for func in range(requests.RequestObserver.RECYCLE_ABOVE):
            cells.put(struct.pack("=QiI8x", 0x100000 + func, -1, 0), CELL.pack(1, *[0] * 7))
        assert observer.recycle_if_full()
        assert list(cells.keys()) == list(observer.probe.map("stacks").keys()) == []
        assert examples.get(struct.pack("=Q", 0x2000)) == bytes(EXAMPLE.size)
        assert fell(before.totals, observer.read().totals)
        replay.run("csd_queue_cpu", 1, SITE, 0x2000, 0)  # the probe counts again, with a new example
        (cell,) = observer.cells(RequestSample({}), observer.read())
        assert (cell.func, cell.requests) == ("rcu_exp_handler", 1)
        assert cell.stack
    finally:
        observer.close()
