"""The script of the 2017 test: memory cgroups are made in a loop, and the counters are read before and after it.

Asynchronous work matters: kernels before 5.9 ("mm: memcg/slab: use a single set of kmem_caches for all accounted
allocations") make the caches of a memcg in kworkers, until 8 to 31 s after the loop (measured on 4.19), so a reading
2 s after it sees a fifth of them. What samples, sleeps and makes the cgroups is passed in as arguments.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from kickwatch.errors import KickwatchError
from kickwatch.experiment.reproduce_report import Memory, estimate_bytes, too_much_memory
from kickwatch.experiment.reproduce_verdict import Phase, Reading, Reproduction, Wakeups, call_rise
from kickwatch.model import Control

PILOT_LOOPS = 20

Sample = Callable[[], Awaitable[Reading]]
Sleep = Callable[[float], Awaitable[object]]
Progress = Callable[[str, int, int], None]  # the step ("create", "settle", ...), how much of it is done, of how much


@dataclass(frozen=True)
class Settings:
    """How many loops, and how long to watch. `quiet_s`: how long the counters must stay still. `settle_s`: the longest
    wait for that. `watch_s`: how long creation is watched at least, since kworkers may start late.
    """

    loops: int = 10_000
    force: bool = False
    background_s: float = 5.0
    quiet_s: float = 5.0
    watch_s: float = 10.0
    settle_s: float = 40.0
    poll_s: float = 0.5


@dataclass(frozen=True)
class Created:
    """Loops that are done: their duration, and what the kernel did with the limits."""

    loop_ns: int
    limit: str
    kmem: str


class Loops(Protocol):
    """Makes the memory cgroups of the test."""

    async def create(self, loops: int, progress: Callable[[int], None]) -> Created:
        """Do `loops` more loops."""

    async def remove(self, loops: int) -> int:
        """Remove all memory cgroups, `loops` of them. Returns the duration in nanoseconds."""

    async def memory(self) -> Memory:
        """The memory that the node and the parent cgroup use now."""


async def until_still(
    sample: Sample,
    settings: Settings,
    *,
    at_least_s: float,
    still: int,
    attributed: bool = False,
    sleep: Sleep = asyncio.sleep,
) -> tuple[Reading, bool]:
    """Wait until the counters are at rest. Returns the last reading, and whether that was before `settle_s`.

    At rest: over the last `quiet_s` CAL - TLB rose by at most `still`. With `attributed` and an armed probe: no
    broadcast was attributed, whatever else interrupts the CPUs of this node.
    """
    first = last = await sample()
    recent = deque([first])
    while last.at_ns - first.at_ns < settings.settle_s * 1e9:
        await sleep(settings.poll_s)
        last = await sample()
        recent.append(last)
        while len(recent) > 1 and last.at_ns - recent[1].at_ns >= settings.quiet_s * 1e9:
            recent.popleft()
        watched_ns = last.at_ns - first.at_ns
        if watched_ns >= max(at_least_s, settings.quiet_s) * 1e9 and _at_rest(recent[0], last, still, attributed):
            return last, True
    return last, False


def _at_rest(before: Reading, after: Reading, still: int, attributed: bool) -> bool:
    if attributed and before.probed is not None and after.probed is not None:
        return before.probed.created == after.probed.created
    calls = call_rise(before, after)
    return calls is not None and calls <= still


def still_below(settings: Settings, background_hz: float, other_cpus: int) -> int:
    """How many function call interrupts in `quiet_s` count as rest: twice the background, plus a negligible number.

    A hundredth of an interrupt per loop and other CPU in `quiet_s` is a fiftieth of the threshold of the verdict.
    """
    return round(2 * background_hz * settings.quiet_s + max(5.0, 0.01 * settings.loops * other_cpus))


async def reproduce(
    loops: Loops,
    sample: Sample,
    settings: Settings,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    kmem_accounted: bool = True,
    wakeups: Wakeups = Wakeups.APART,
    control: Control | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Reproduction:
    """The whole test: background, creation, its asynchronous work, removal, its asynchronous work.

    `control`: the positive control of what attributes broadcasts. If it failed, `sample` has no such figures.
    Raises KickwatchError if the memory cgroups would take more than a tenth of the available memory (not with `force`),
    HelperError if the child fails.
    """
    background_hz, other_cpus = await _background(sample, settings, sleep)
    still = still_below(settings, background_hz, other_cpus)
    empty = await loops.memory()
    before = await sample()
    created, bytes_per_memcg = await _create(loops, settings, empty, progress)
    progress("settle", 0, 1)
    after, rested = await until_still(
        sample, settings, at_least_s=settings.watch_s, still=still, attributed=True, sleep=sleep
    )
    creation = Phase(before, after, created.loop_ns, rested)
    progress("remove", 0, 1)
    before = await sample()
    loop_ns = await loops.remove(settings.loops)
    after, rested = await until_still(sample, settings, at_least_s=0.0, still=still, sleep=sleep)
    removal = Phase(before, after, loop_ns, rested)
    progress("done", 1, 1)
    return Reproduction(
        loops=settings.loops,
        background_hz=background_hz,
        creation=creation,
        removal=removal,
        bytes_per_memcg=bytes_per_memcg,
        limit=created.limit,
        kmem=created.kmem,
        kmem_accounted=kmem_accounted,
        wakeups=wakeups,
        control=control,
    )


async def _background(sample: Sample, settings: Settings, sleep: Sleep) -> tuple[float, int]:
    """(function call interrupts per second without TLB shootdowns, other CPUs), before any memory cgroup is made."""
    before = await sample()
    await sleep(settings.background_s)
    after = await sample()
    span_s = (after.at_ns - before.at_ns) / 1e9
    rate_hz = max(0, call_rise(before, after) or 0) / span_s if span_s > 0 else 0.0
    return rate_hz, max(0, len(after.interrupts.cpus) - 1)


async def _create(loops: Loops, settings: Settings, empty: Memory, progress: Progress) -> tuple[Created, int]:
    """Do all loops, in stages: until 20 are done, 200, 2000, and so on. Also returns the bytes of one memory cgroup.

    Each stage ends with a new estimate of the memory that all loops will take. The first 20 show what a memcg is
    charged. The per-CPU and batched counters of the node lag behind, so larger stages give a larger figure (18 KiB
    after the first 20, 27 KiB in the end).
    """
    done, loop_ns, bytes_per_memcg = 0, 0, 0
    created = Created(0, "", "")
    while done < settings.loops:
        if done and not settings.force and too_much_memory(bytes_per_memcg, settings.loops, empty.available_bytes):
            raise _too_much(settings.loops, bytes_per_memcg, empty.available_bytes)
        stage = min(max(PILOT_LOOPS, done * 9), settings.loops - done)

        def report(of_stage: int, before: int = done) -> None:
            progress("create", before + of_stage, settings.loops)

        created = await loops.create(stage, report)
        loop_ns += created.loop_ns
        done += stage
        bytes_per_memcg = estimate_bytes(empty, await loops.memory(), done)
    progress("create", done, settings.loops)
    return replace(created, loop_ns=loop_ns), bytes_per_memcg


def _too_much(loops: int, bytes_per_memcg: int, available_bytes: int) -> KickwatchError:
    return KickwatchError(
        f"{loops} memory cgroups of {bytes_per_memcg >> 10} KiB would take {bytes_per_memcg * loops >> 20} MiB, "
        f"more than a tenth of the {available_bytes >> 20} MiB available",
        "use fewer loops (-n), or --force",
    )
