"""Clean-up that a second signal must not cut short."""

import asyncio

import pytest

from kickwatch.shielded import finish


async def test_the_work_ends_however_often_its_caller_is_cancelled() -> None:
    steps: list[str] = []

    async def clean_up() -> str:
        for step in ("containers", "cgroups", "image"):
            await asyncio.sleep(0.02)
            steps.append(step)
        return "clean"

    caller = asyncio.create_task(finish(clean_up()))
    for _ in range(3):
        await asyncio.sleep(0.01)
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert steps == ["containers", "cgroups", "image"]


async def test_results_and_failures_come_through() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("disk full")

    assert await finish(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(OSError, match="disk full"):
        await finish(fail())
    caller = asyncio.create_task(finish(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await caller
    assert isinstance(caught.value.__cause__, OSError)
