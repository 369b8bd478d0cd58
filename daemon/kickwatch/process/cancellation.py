"""Cancellation that can be told apart from other failures: in clean-up, deadlines and task groups.

In Python 3.11 and 3.12 a task whose TaskGroup failed keeps a count of one cancellation that nobody requested. Before
3.11.4 an `asyncio.timeout` in such a task then ends with CancelledError instead of TimeoutError.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def run_shielded(awaitable: Awaitable[T], timeout_s: float | None = None) -> T:
    """Await `awaitable` to its end even if the caller is cancelled, then raise the cancellation.

    With `asyncio.shield` alone, a second cancellation (another signal, the abort of a TaskGroup) returns while the work
    is still running. `awaitable` must therefore end by itself, or `timeout_s` cancels it and raises TimeoutError. A
    cancellation takes precedence over a result or an exception of `awaitable`; the exception becomes its cause.
    """
    task = asyncio.ensure_future(asyncio.wait_for(awaitable, timeout_s))
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation from (None if task.cancelled() else task.exception())
    return task.result()


@asynccontextmanager
async def timeout(seconds: float | None) -> AsyncIterator[None]:
    """`asyncio.timeout`, which also raises TimeoutError in a task that is already being cancelled. None: no limit."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except asyncio.CancelledError as error:
        if limit.expired() and task is not None and task.cancelling() <= before:
            raise TimeoutError from error
        raise


async def detached_group(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which contains a TaskGroup, in a separate task, which keeps the group's cancellation count.

    A cancellation of the caller is passed on and awaited, and is raised even if the group fails at the same time.
    """
    task, caller = asyncio.ensure_future(work), asyncio.current_task()
    before = caller.cancelling() if caller is not None else 0
    try:
        return await task
    except Exception as error:
        if caller is not None and caller.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
