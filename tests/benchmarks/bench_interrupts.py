"""Cost of parsing a /proc/interrupts with 256 CPUs and 400 rows, compared with parsing every number; cost of a sample.

Run: .venv/bin/python tests/benchmarks/bench_interrupts.py. Exit status 1 if the median parse exceeds its budget.
"""

import asyncio
import sys
from pathlib import Path

import click
from spread import spread_ms, spread_of_awaits_ms

from kickwatch.observe.interrupts import parse_interrupts, read_interrupts

CPUS = 256
ROWS = 400
ROUNDS = 31
BUDGET_MS = 20.0


def big_text(cpus: int = CPUS) -> str:
    """A file as the kernel prints it: counts in ten columns, the IPI rows last, as on x86."""
    lines = [" " * 12 + "".join(f"CPU{cpu:<8d}" for cpu in range(cpus))]
    ipis = [("RES", "Rescheduling interrupts"), ("CAL", "Function call interrupts"), ("TLB", "TLB shootdowns")]
    names = [(str(irq), f"PCI-MSIX-0000:00:01.0 {irq}-edge nvme0q{irq}") for irq in range(ROWS - len(ipis))]
    for row, (label, name) in enumerate(names + ipis):
        counts = "".join(f"{(row * 7919 + cpu * 104729) % 4294967296:10d} " for cpu in range(cpus))
        lines.append(f"{label:>4s}: {counts}  {name}")
    return "\n".join(lines) + "\n"


def parse_everything(text: str) -> int:
    """For comparison: every count of every row as an integer."""
    total = 0
    for line in text.splitlines()[1:]:
        total += sum(int(word) for word in line.partition(":")[2].split()[:CPUS])
    return total


def main() -> int:
    """Print min / median / max of each; 1 if the budget is exceeded."""
    text = big_text()
    ours = spread_ms(lambda: parse_interrupts(text), ROUNDS)
    yardstick = spread_ms(lambda: parse_everything(text), ROUNDS)
    sample = asyncio.run(spread_of_awaits_ms(lambda: read_interrupts(Path("/proc")), ROUNDS))
    click.echo(f"/proc/interrupts of {CPUS} CPUs x {ROWS} rows, {len(text) / 1e6:.2f} MB; min / median / max, ms")
    for name, figures in (("parse", ours), ("every number", yardstick), ("one sample of this node", sample)):
        click.echo(f"  {name:24s}" + " / ".join(f"{figure:.2f}" for figure in figures))
    click.echo(f"  every number / parse: {yardstick[1] / ours[1]:.1f}; budget {BUDGET_MS:.0f} ms")
    return int(ours[1] > BUDGET_MS)


if __name__ == "__main__":
    sys.exit(main())
