"""Cancellation that is told from everything else: clean-up it must not interrupt, deadlines, groups of tasks.

Python 3.11 and 3.12 leave a task whose TaskGroup failed counted as cancelled once, by nobody; and before 3.11.4 an
`asyncio.timeout` in a task that is so counted ends with CancelledError, as if somebody had cancelled it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def run_shielded(awaitable: Awaitable[T], timeout_s: float | None = None) -> T:
    """Await `awaitable` to its end, cancelled or not; then the cancellation goes on its way.

    `asyncio.shield` alone lets a second cancellation (another signal, the abort of a TaskGroup) walk away from work
    that it leaves running. So `awaitable` must bound itself, or `timeout_s` does: then it is cancelled and TimeoutError
    raised. Where both happen, the cancellation outranks what `awaitable` returned or raised; the latter is its cause.
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
async def timeout(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, with TimeoutError in a task that is being cancelled, too."""
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
    """Await `work`, which holds a TaskGroup, in a task of its own: what the group counts stays there.

    A cancellation is passed on, waited for, and not forgotten where the group failed at the same time.
    """
    task, caller = asyncio.ensure_future(work), asyncio.current_task()
    before = caller.cancelling() if caller is not None else 0
    try:
        return await task
    except Exception as error:
        if caller is not None and caller.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
