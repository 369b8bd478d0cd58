"""The 2017 test on this node: a native child makes the memory cgroups, /proc/interrupts is read around it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kickwatch.detect.classes import wakeups_told_apart
from kickwatch.errors import KickwatchError
from kickwatch.experiment.reproduce import Created, Progress, Sample, Settings, reproduce
from kickwatch.experiment.reproduce_report import Memory, parse_meminfo
from kickwatch.experiment.reproduce_verdict import Reading, Reproduction, Wakeups
from kickwatch.model import Control
from kickwatch.native.driver import Helper
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes, nokmem
from kickwatch.node.idle import idle_cpus_halt
from kickwatch.node.kernel import architecture, release
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe.interrupts import read_interrupts
from kickwatch.observe.request_cells import RequestCounts
from kickwatch.process.cancellation import run_shielded
from kickwatch.workload.canary import REPRODUCE_GROUP, clear_group, prepare_group

_DEADLINE_S, _DEADLINE_PER_LOOP_S = 60.0, 0.05


@dataclass(frozen=True)
class NativeLoops:
    """The native child and its cgroup."""

    helper: Helper
    parent: Path
    proc: Path

    async def create(self, loops: int, progress: Callable[[int], None]) -> Created:
        """Do `loops` more loops. Raises HelperError."""
        every = max(1, loops // 100)
        answer = await self.helper.ask(f"create {loops} {every}", _deadline_s(loops), progress)
        return Created(answer.value or 0, answer.fields.get("limit", ""), answer.fields.get("kmem", ""))

    async def remove(self, loops: int) -> int:
        """Remove all memory cgroups. Raises HelperError."""
        return (await self.helper.ask("remove", _deadline_s(loops))).value or 0

    async def memory(self) -> Memory:
        """From /proc/meminfo and the parent's kmem counter. Raises KickwatchError."""
        return await asyncio.to_thread(self._memory)

    def _memory(self) -> Memory:
        path = self.proc / "meminfo"
        try:
            memory = parse_meminfo(path.read_text(encoding="ascii"))
        except OSError as error:
            raise KickwatchError(
                f"cannot read {path} ({error.strerror})", "check that proc is mounted there"
            ) from error
        return replace(memory, parent_kmem_bytes=kmem_usage_bytes(self.parent))


def _deadline_s(loops: int) -> float:
    return _DEADLINE_S + _DEADLINE_PER_LOOP_S * loops


@asynccontextmanager
async def native_loops(
    cgroups: Cgroups, *, scratch: Path | None = None, group: str = REPRODUCE_GROUP
) -> AsyncIterator[NativeLoops]:
    """Start the child in its cgroup. Both are gone afterwards. First removes what a killed run left."""
    try:
        parent, home, directory = await run_shielded(asyncio.to_thread(prepare_group, cgroups, group, scratch))
        async with Helper(["reproduce", parent, cgroups.version.value, home, directory]) as helper:
            yield NativeLoops(helper, parent, cgroups.proc)
    finally:
        await clear_group(cgroups, group)


def no_probe() -> RequestCounts | None:
    """No probe has counted anything."""
    return None


def wakeups_here(host: HostRoots = HOST) -> Wakeups:
    """What remote wakeups mean for the function call interrupts of this node.

    Where x86 CPUs halt while idle, only the probe can tell wakeups from broadcasts. It counts each of them, so what the
    counters show beyond its figures still contradicts it. That was not measured on other architectures.
    """
    arch, kernel = architecture(), release()
    if wakeups_told_apart(arch, kernel, idle_cpus_halt=True):
        return Wakeups.APART
    if not wakeups_told_apart(arch, kernel, idle_cpus_halt=False):
        return Wakeups.INCLUDED
    return Wakeups.PROBED if idle_cpus_halt(host) else Wakeups.APART


def sampler(
    proc: Path, probed: Callable[[], RequestCounts | None] = no_probe, control: Control | None = None
) -> Sample:
    """Reads `proc`/interrupts and what a probe has counted. Nothing of a probe that failed its positive control."""
    trusted = probed if control is None or control.passed else no_probe

    async def sample() -> Reading:
        interrupts = await read_interrupts(proc)
        return Reading(time.monotonic_ns(), interrupts, trusted())

    return sample


async def run(
    cgroups: Cgroups,
    settings: Settings,
    *,
    progress: Progress = lambda _what, _done, _of: None,
    probed: Callable[[], RequestCounts | None] = no_probe,
    control: Control | None = None,
    group: str = REPRODUCE_GROUP,
) -> Reproduction:
    """Run the test on this node with the native child. `probed`, `control`: see `sampler`."""
    command_line = await asyncio.to_thread((cgroups.proc / "cmdline").read_text, encoding="utf-8", errors="replace")
    wakeups = await asyncio.to_thread(wakeups_here)
    async with native_loops(cgroups, group=group) as loops:
        return await reproduce(
            loops,
            sampler(cgroups.proc, probed, control),
            settings,
            progress=progress,
            kmem_accounted=not nokmem(command_line),
            wakeups=wakeups,
            control=control,
        )
