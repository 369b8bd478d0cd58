"""Clean-up that a second signal must not cut short; deadlines and groups that leave no false cancellation behind."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kickwatch.process.cancellation import detached_group, run_shielded, timeout

ROOT = Path(__file__).parents[3]


async def test_the_work_ends_however_often_its_caller_is_cancelled() -> None:
    steps: list[str] = []

    async def clean_up() -> str:
        for step in ("containers", "cgroups", "image"):
            await asyncio.sleep(0.02)
            steps.append(step)
        return "clean"

    caller = asyncio.create_task(run_shielded(clean_up()))
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

    assert await run_shielded(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(OSError, match="disk full"):
        await run_shielded(fail())
    caller = asyncio.create_task(run_shielded(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await caller
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_deadline_is_a_timeout_in_a_task_that_is_being_cancelled_too() -> None:
    seen: list[type[BaseException]] = []

    async def cleaning_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                async with timeout(0.01):
                    await asyncio.sleep(60)
            except (TimeoutError, asyncio.CancelledError) as error:
                seen.append(type(error))

    task = asyncio.create_task(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [TimeoutError]


async def test_a_cancellation_within_a_deadline_is_none() -> None:
    async def work() -> None:
        async with timeout(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def failing() -> None:
    await asyncio.sleep(0)
    raise OSError("engine gone")


async def group(work: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work)


async def test_a_group_that_failed_leaves_its_caller_uncancelled() -> None:
    with pytest.raises(ExceptionGroup):
        await detached_group(group(failing()))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with timeout(0.01):
            await asyncio.sleep(60)


async def test_a_cancellation_is_not_forgotten_where_the_group_fails_at_the_same_time() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("clean-up failed")

    task = asyncio.create_task(detached_group(group(stubborn())))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, ExceptionGroup)


OLD = """
import asyncio, sys
from kickwatch.process.cancellation import detached_group, timeout

async def failing():
    await asyncio.sleep(0)
    raise OSError

async def group():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(failing())

async def main():
    for run in (group, lambda: detached_group(group())):
        try:
            await run()
        except* OSError:
            pass
        try:
            async with timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            print("timeout")

asyncio.run(main())
"""


def test_the_nodes_own_python_keeps_deadlines_after_a_group_failed() -> None:
    """Debian 12's 3.11.2 is where `asyncio.timeout` does not: a daemon that waited for its engine ended by that."""
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    done = subprocess.run(
        [python, "-c", OLD], env={"PYTHONPATH": str(ROOT / "daemon")}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("timeout\ntimeout\n", "")
