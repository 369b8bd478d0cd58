"""Duration of a reading at a window's edge: on this node, and the parts that grow with CPUs for 64 and 512 CPUs.

Two parts grow: the per-CPU values of the probes' maps (busy cells and health), and /proc/interrupts. For 64 and 512
CPUs their bytes are generated here in the kernel's format and processed by kickwatch's code. The time that the kernel
needs to collect them is only in the first line, for this node's CPUs; LABORATORY.md has it for guests with 4 and 16.
Needs root. Exit status 1 if the parts for 64 CPUs exceed their budget.
"""

import asyncio
import sys
from collections.abc import Callable

import click
from bench_interrupts import big_text
from spread import spread_ms, spread_of_awaits_ms

from kickwatch.observe.bpf import BpfMap
from kickwatch.observe.interrupts import parse_interrupts
from kickwatch.observe.layouts import CELL
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health, read_health
from kickwatch.observe.request_cells import sum_cpus

ROUNDS, BUSY_CELLS, PROBES = 31, 4, 2
BUDGET_MS, BUDGET_CPUS = 10.0, 64


class Wide(BpfMap):
    """A per-CPU map with any number of CPUs. Only reading and summing its values is measured, no look-up."""

    def __init__(self, cpus: int) -> None:
        """Without a map in the kernel."""
        self._bytes = b"".join(cpu.to_bytes(8, sys.byteorder) for cpu in range(cpus))

    def get(self, key: bytes) -> bytes | None:  # noqa: ARG002 -- the same for all keys
        """The values, which are the same for all keys."""
        return self._bytes


def per_cpu_maps(cpus: int) -> Callable[[], object]:
    """A function that sums all per-CPU values of one reading."""
    busy, health = b"".join(CELL.pack(cpu, cpu, 0) for cpu in range(cpus)), Wide(cpus)

    def read() -> None:
        for _ in range(BUSY_CELLS):
            sum_cpus(busy)
        for _ in range(PROBES):
            read_health(health)

    return read


async def node_ms() -> tuple[int, float]:
    """The number of CPUs, and the median duration of a complete reading on this node."""
    observatory = await Observatory.open()
    try:
        return observatory.cpus_online, (await spread_of_awaits_ms(observatory.sample, ROUNDS))[1]
    finally:
        observatory.close()


def main() -> int:
    """Print min / median / max of each; 1 if the budget is exceeded."""
    cpus_online, taken = asyncio.run(node_ms())
    click.echo(f"a complete reading on this node, {cpus_online} CPUs: median {taken:.2f} ms of {ROUNDS}")
    click.echo("parts that grow with CPUs; min / median / max, ms")
    total = {}
    for cpus in (cpus_online, BUDGET_CPUS, 512):
        text, width = big_text(cpus), (BUSY_CELLS * CELL.size + PROBES * len(Health._fields) * 8) * cpus
        parts = {
            f"per-CPU values, {width / 1e3:.1f} kB": spread_ms(per_cpu_maps(cpus), ROUNDS),
            f"/proc/interrupts, {len(text) / 1e6:.2f} MB": spread_ms(lambda text=text: parse_interrupts(text), ROUNDS),
        }
        for name, figures in parts.items():
            click.echo(f"  {cpus:4d} CPUs {name:28s}" + " / ".join(f"{figure:.2f}" for figure in figures))
        total[cpus] = sum(figures[1] for figures in parts.values())
    click.echo(f"{BUDGET_CPUS} CPUs together {total[BUDGET_CPUS]:.2f} ms; budget {BUDGET_MS:.0f} ms")
    return int(total[BUDGET_CPUS] > BUDGET_MS)


if __name__ == "__main__":
    sys.exit(main())
