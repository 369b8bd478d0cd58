"""Which CPUs requests reach: known numbers must be counted exactly, by target, and sums must agree under load."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from kickwatch.model import Window, WindowKind
from kickwatch.native.driver import Helper
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.windows import Sample
from needs import ipi_rung
from shootdowns import shootdowns

pytestmark = pytest.mark.kernel

MANY, SINGLE = 23, 7
LISTED = 1  # isolated as far as kickwatch is concerned; the scheduler still uses it
STORM = shootdowns(400)  # without a pause between two


@pytest.fixture
async def listed() -> AsyncIterator[Observatory]:
    """Armed with one CPU listed as isolated."""
    armed = await Observatory.open(listed=[LISTED])
    if armed.cpus_online < 2:
        armed.close()
        pytest.skip("feature: one CPU interrupts no other")
    assert armed.observers.ipis == ipi_rung(), armed.losses
    yield armed
    armed.close()


async def barriers(observatory: Observatory, cpus: str) -> tuple[Window, Window]:
    """Windows of MANY multi-CPU barriers, and of SINGLE ones for one CPU; the first of `cpus` sends."""
    async with Helper(["barriers", str(MANY), str(SINGLE), cpus]) as helper:
        before = await observatory.sample()
        await helper.ask("many", 20)
        between = await observatory.sample()
        await helper.ask("single", 20)
        after = await observatory.sample()
    kind = WindowKind.CONTROL
    return observatory.window(kind, before, between), observatory.window(kind, between, after)


def sent(observatory: Observatory, samples: list[Sample]) -> int:
    """Requests from the first sample to the last."""
    return sum(observatory.window(WindowKind.CHURN, samples[0], samples[-1]).per_cpu or ())


async def test_membarriers_to_an_isolated_cpu_are_counted_exactly(listed: Observatory) -> None:
    for window, func, made in zip(await barriers(listed, "0,1"), ("ipi_mb", "ipi_rseq"), (MANY, SINGLE), strict=True):
        (cell,) = [cell for cell in window.cells if cell.func == func]
        assert (cell.requests, cell.isolated, cell.isolated_cpus) == (made, made, (LISTED,))
        assert window.per_cpu is not None
        assert window.per_cpu[LISTED] >= made
        assert sum(window.per_cpu) == sum(cell.requests for cell in window.cells)


async def test_membarriers_from_an_isolated_cpu_are_not_counted_as_reaching_it(listed: Observatory) -> None:
    for window, func, made in zip(await barriers(listed, "1,0"), ("ipi_mb", "ipi_rseq"), (MANY, SINGLE), strict=True):
        (cell,) = [cell for cell in window.cells if cell.func == func]
        assert (cell.requests, cell.isolated, cell.isolated_cpus) == (made, 0, ())
        assert window.per_cpu is not None
        assert window.per_cpu[0] >= made


async def test_interrupts_of_every_kind_to_isolated_cpus_are_counted(listed: Observatory) -> None:
    """A barrier waits until its target has answered: so each has an interrupt of its own."""
    if listed.losses:
        pytest.skip(f"feature: {'; '.join(listed.losses)}")
    many, _ = await barriers(listed, "0,1")
    assert many.isolated_ipis is not None
    assert many.isolated_ipis >= MANY


async def test_nothing_is_counted_as_isolated_where_no_cpu_is(observatory: Observatory) -> None:
    if observatory.isolated_cpus:
        pytest.skip("feature: this machine has isolated CPUs")
    many, _ = await barriers(observatory, "0,1")
    assert many.isolated_ipis is None
    assert {(cell.isolated, cell.isolated_cpus) for cell in many.cells} == {(None, ())}
    assert many.per_cpu is not None
    assert many.per_cpu[1] >= MANY


@pytest.mark.timeout(120)
async def test_sums_are_exact_while_thousands_of_requests_a_second_are_sent(listed: Observatory) -> None:
    """A reading takes about a millisecond, in which further requests are sent: none of them is in one sum only.

    60 readings, and more until the load has begun, which on a busy machine takes longer than those.
    """
    load = await asyncio.create_subprocess_exec(sys.executable, "-c", STORM, stdout=subprocess.DEVNULL)
    try:
        samples = [await listed.sample()]
        deadline = time.monotonic() + 60
        while len(samples) < 60 or (sent(listed, samples) < 2000 and time.monotonic() < deadline):
            samples.append(await listed.sample())
    finally:
        load.kill()
        await load.wait()
    total = 0
    for before, after in pairwise(samples):
        window = listed.window(WindowKind.CHURN, before, after)
        requests = sum(cell.requests for cell in window.cells)
        assert window.per_cpu is not None
        assert sum(window.per_cpu) == requests
        assert sum(cell.isolated or 0 for cell in window.cells) == window.per_cpu[LISTED]
        assert {cell.isolated_cpus for cell in window.cells if cell.isolated} <= {(LISTED,)}
        total += requests
    assert total > 1000
