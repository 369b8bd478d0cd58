"""Clean-up that a cancellation must not interrupt, however often it comes."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def finish(awaitable: Awaitable[T], timeout_s: float | None = None) -> T:
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
