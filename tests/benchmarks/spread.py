"""Durations of repeated calls: minimum, median and maximum in milliseconds."""

import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

Spread = tuple[float, float, float]


def spread(taken: Sequence[float]) -> Spread:
    """Of figures that were measured already, in their unit."""
    return min(taken), median(taken), max(taken)


def spread_ms(function: Callable[[], object], rounds: int) -> Spread:
    """Durations of calling a function."""
    taken = []
    for _ in range(rounds):
        start_ns = time.perf_counter_ns()
        function()
        taken.append((time.perf_counter_ns() - start_ns) / 1e6)
    return spread(taken)


async def spread_of_awaits_ms(function: Callable[[], Awaitable[object]], rounds: int) -> Spread:
    """Durations of awaiting a coroutine, including switches to threads."""
    taken = []
    for _ in range(rounds):
        start_ns = time.perf_counter_ns()
        await function()
        taken.append((time.perf_counter_ns() - start_ns) / 1e6)
    return spread(taken)
