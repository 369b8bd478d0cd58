"""Cost of a container on each engine compared with Docker: time, CPU time of the whole node, and interrupts.

Containers run one at a time with barrier and accounting check, interleaved block by block, so that drift of the machine
affects all equally; the first block is not counted. No probe is armed: interrupts are from /proc/interrupts, including
those of other processes. Prints each block, and the median of the blocks' ratios to Docker with its spread. Needs root,
a Docker Engine, and runc or crun.

    usage: bench_engines.py [--blocks N] [--containers N] [--runtime NAME ...]
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kickwatch.native import binary
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.lock import NodeLock
from kickwatch.observe.interrupts import parse_interrupts
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.engine import ContainerSpec, Engine
from kickwatch.workload.names import cgroup_parent, new_trial_id, read_instance
from kickwatch.workload.oci_engine import OciEngine
from kickwatch.workload.oci_support import RUNTIME_NAMES, find_runtime
from kickwatch.workload.reaper import reap_cgroups, reap_containers

SOCKET = os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock")
TIMEOUT_S = 30.0
MOST_OF_DOCKER = 0.2
KINDS = ("CAL", "RES", "TLB")


@dataclass
class Contestant:
    """An engine that is ready to run containers."""

    name: str
    engine: Engine
    image: str
    parent: str
    cgroups: Cgroups
    instance: str

    async def life(self, name: str, trial: str) -> None:
        """The life of one container, from create to remove; kernel memory must be charged."""
        spec = ContainerSpec(
            name=name, instance=self.instance, trial=trial, image=self.image, command=(), network="none",
            cgroup_parent=self.parent, pids_limit=64,
        )  # fmt: skip
        container_id = await self.engine.create(spec)
        await self.engine.start(container_id)
        barrier = Barrier(self.cgroups, self.cgroups.memory_root / self.parent.lstrip("/"))
        process = await barrier.wait_for(container_id, self.engine.pid)
        if process is None or not await asyncio.to_thread(process.kmem_bytes):
            sys.exit(f"bench_engines: {self.name}: no kernel memory was charged at the barrier")
        await asyncio.to_thread(process.release)
        status = await self.engine.wait(container_id, TIMEOUT_S)
        if status != 0:
            sys.exit(f"bench_engines: {self.name}: a container exited with status {status}")
        await self.engine.remove(container_id)


@dataclass(frozen=True)
class Cost:
    """The cost of one container."""

    ms: float
    cpu_ms: float
    interrupts: float

    def __str__(self) -> str:
        return f"{self.ms:.1f} ms, {self.cpu_ms:.0f} ms CPU of the node, {self.interrupts:.0f} CAL + RES + TLB"


def busy_s() -> float:
    """Busy seconds of all CPUs since boot (proc_stat(5): all but idle and iowait)."""
    ticks = list(map(int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]))
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def interrupts() -> int:
    """Inter-processor interrupts of all CPUs since boot."""
    sample = parse_interrupts(Path("/proc/interrupts").read_text(encoding="utf-8"))
    return sum(sum((sample.row(kind) or {}).values()) for kind in KINDS)


async def block(contestant: Contestant, containers: int) -> Cost:
    """Run `containers` containers one after another."""
    trial = new_trial_id()
    interrupts_before, busy_before = await asyncio.to_thread(lambda: (interrupts(), busy_s()))
    since = time.perf_counter()
    for index in range(containers):
        await contestant.life(f"kickwatch-{trial}-{index}", trial)
    elapsed_s = time.perf_counter() - since
    interrupts_after, busy_after = await asyncio.to_thread(lambda: (interrupts(), busy_s()))
    return Cost(
        ms=elapsed_s / containers * 1e3,
        cpu_ms=(busy_after - busy_before) / containers * 1e3,
        interrupts=(interrupts_after - interrupts_before) / containers,
    )


async def ready(name: str) -> Contestant:
    """An engine with our image."""
    engine: Engine
    if name == "docker":
        engine = DockerEngine(SOCKET, timeout_s=TIMEOUT_S, workers=2)
    else:
        engine = OciEngine(name, timeout_s=TIMEOUT_S)
    info = await engine.info()
    image = await engine.prepare_image(await asyncio.to_thread(binary("workload").read_bytes))
    parent = info.cgroup_parent or cgroup_parent(info.cgroup_driver)
    cgroups, instance = await asyncio.to_thread(lambda: (Cgroups.read(), read_instance()))
    return Contestant(str(info), engine, image, parent, cgroups, instance)


async def tidy(contestant: Contestant) -> None:
    """Remove everything of ours."""
    await reap_containers(contestant.engine, contestant.instance)
    await contestant.engine.remove_image(contestant.image)
    await contestant.engine.close()
    await asyncio.to_thread(reap_cgroups, contestant.cgroups, (contestant.parent.lstrip("/"),))


def show(name: str, ratios: list[float], most: float | None) -> bool:
    """Print a line with median and spread; return whether the promise holds."""
    middle = median(ratios)
    promise = "" if most is None else f" (promised at most {most}: {'kept' if middle <= most else 'MISSED'})"
    print(f"{name}: median {middle:.3f}, min {min(ratios):.3f}, max {max(ratios):.3f}{promise}")
    return most is None or middle <= most


async def measure(names: list[str], blocks: int, containers: int) -> bool:
    """Run interleaved blocks on all engines; True if the promises hold."""
    contestants = [await ready(name) for name in ["docker", *names]]
    costs: list[list[Cost]] = []
    try:
        for number in range(blocks + 1):
            costs.append([await block(contestant, containers) for contestant in contestants])
            counted = "" if number else " (warm-up, not counted)"
            for contestant, cost in zip(contestants, costs[-1], strict=True):
                print(f"block {number}, a container on {contestant.name}: {cost}{counted}", flush=True)
    finally:
        for contestant in contestants:
            await tidy(contestant)
    kept = True
    for index, contestant in enumerate(contestants[1:], 1):
        pairs = [(row[index], row[0]) for row in costs[1:]]
        kept &= show(f"{contestant.name} / docker, time", [a.ms / b.ms for a, b in pairs], MOST_OF_DOCKER)
        show(f"{contestant.name} / docker, CPU time", [a.cpu_ms / b.cpu_ms for a, b in pairs], None)
        kept &= show(f"{contestant.name} / docker, IPIs", [a.interrupts / b.interrupts for a, b in pairs], 1.0)
    return kept


def main() -> int:
    """Run the blocks; returns 0 if the promises hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--containers", type=int, default=12)
    here = [name for name in RUNTIME_NAMES if find_runtime(name)]
    parser.add_argument(
        "--runtime", nargs="+", default=here[:1], help="what oci drives; default: the first of %(default)s"
    )
    given = parser.parse_args()
    if not given.runtime:
        sys.exit(f"bench_engines: no {' or '.join(RUNTIME_NAMES)} on PATH")
    with NodeLock():
        return 0 if asyncio.run(measure(given.runtime, given.blocks, given.containers)) else 1


if __name__ == "__main__":
    sys.exit(main())
