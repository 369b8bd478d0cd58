"""Duration of a reading at a window's edge: on this node, and the parts that grow with CPUs for 64 and 512 CPUs.

A paired trial of 23 containers has 47 edges, each with a reading and with the figures of the half that ends there: so
both are measured together, with as many cells as a node has after days.

Two parts grow with CPUs: what the probes count for each CPU (frequent functions, targets, health), and
/proc/interrupts. For 64 and 512 CPUs their bytes are generated here in the kernel's format and processed by kickwatch's
code. The time that the kernel needs to collect them is only in the first line, for this node's CPUs;
docs/laboratory.md has it for guests with 4 and 16. Needs root.
Exit status 1 if a half, or the parts for 64 CPUs, exceed their budget.
"""

import asyncio
import sys
from collections.abc import Callable

import click
from bench_interrupts import big_text
from spread import spread_ms, spread_of_awaits_ms

from kickwatch.model import WindowKind
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.interrupts import parse_interrupts
from kickwatch.observe.layouts import BANKS, CELL, CELL_KEY, FREQUENT_FUNCS, THIS_CPU
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health, read_health
from kickwatch.observe.request_maps import EachCpu, far_cpus, read_far_targets

ROUNDS, PROBES = 31, 2
CELLS, HALF_BUDGET_MS = 200, 3.0
BUDGET_MS, BUDGET_CPUS = 10.0, 64
KEYS = {index: bytes([index]) for index in range(FREQUENT_FUNCS)}


class WideMap(BpfMap):
    """An array without a map in the kernel: every entry has the same value. Only summing the values is measured."""

    def __init__(self, value: bytes) -> None:
        """`value`: of one entry."""
        self._bytes = value

    def entries(self, indices: range) -> list[bytes]:
        """The same value for all indices."""
        return [self._bytes] * len(indices)


class WideProbe(BpfObject):
    """The maps of a request probe on a machine with any number of CPUs."""

    def __init__(self, cpus: int) -> None:
        """Without an object in the kernel."""
        counters = b"".join(cpu.to_bytes(8, sys.byteorder) for cpu in range(cpus))
        self._maps = {name: WideMap(counters) for name in ("far_targets", "health")}
        self._maps["each_cpu"] = WideMap(bytes(range(1, 177)) * (THIS_CPU.size // 176))

    def map(self, name: str) -> BpfMap:
        """A map by its name in the C source."""
        return self._maps[name]


def per_cpu_maps(cpus: int) -> Callable[[], object]:
    """A function that sums all that one reading has for each CPU."""
    probe = WideProbe(cpus)

    def read() -> None:
        each = EachCpu(probe, 0, cpus)
        each.totals(KEYS)
        each.targets(cpus)
        read_far_targets(probe, 0, cpus)
        for _ in range(PROBES):
            read_health(probe.map("health"))

    return read


async def node_ms() -> tuple[int, float, float]:
    """The number of CPUs, and the median durations of a reading, and of a reading with its window, on this node."""
    observatory = await Observatory.open()
    try:
        assert observatory.requests is not None, observatory.losses
        _fill(observatory.requests.probe)
        before = [await observatory.sample() for _ in range(BANKS)][-1]  # what has no target is noticed once per bank

        async def half() -> None:
            observatory.window(WindowKind.CHURN, before, await observatory.sample())

        reading = (await spread_of_awaits_ms(observatory.sample, ROUNDS))[1]
        return observatory.cpus_online, reading, (await spread_of_awaits_ms(half, ROUNDS))[1]
    finally:
        observatory.close()


def _fill(probe: BpfObject) -> None:
    """Cells of the first functions in the kernel's text, without stacks."""
    for number in range(CELLS):
        key = CELL_KEY.pack(0xFFFFFFFF81000000 + number * 0x1000, -1, 1, 0)
        probe.map("cells").put(key, CELL.pack(*range(1, 1 + CELL.size // 8)))


def main() -> int:
    """Print min / median / max of each; 1 if a budget is exceeded."""
    cpus_online, reading, half = asyncio.run(node_ms())
    click.echo(f"this node, {cpus_online} CPUs, {CELLS} cells; medians of {ROUNDS}")
    click.echo(f"  a complete reading {reading:.2f} ms; with its window {half:.2f} ms; budget {HALF_BUDGET_MS:.0f} ms")
    click.echo("parts that grow with CPUs; min / median / max, ms")
    total = {}
    for cpus in (cpus_online, BUDGET_CPUS, 512):
        each = THIS_CPU.size + (far_cpus(cpus) + PROBES * len(Health._fields)) * 8
        text, width = big_text(cpus), each * cpus
        parts = {
            f"per-CPU values, {width / 1e3:.1f} kB": spread_ms(per_cpu_maps(cpus), ROUNDS),
            f"/proc/interrupts, {len(text) / 1e6:.2f} MB": spread_ms(lambda text=text: parse_interrupts(text), ROUNDS),
        }
        for name, figures in parts.items():
            click.echo(f"  {cpus:4d} CPUs {name:28s}" + " / ".join(f"{figure:.2f}" for figure in figures))
        total[cpus] = sum(figures[1] for figures in parts.values())
    click.echo(f"{BUDGET_CPUS} CPUs together {total[BUDGET_CPUS]:.2f} ms; budget {BUDGET_MS:.0f} ms")
    return int(total[BUDGET_CPUS] > BUDGET_MS or half > HALF_BUDGET_MS)


if __name__ == "__main__":
    sys.exit(main())
