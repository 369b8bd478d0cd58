"""Cost of reading the node's pressure once, and of counting dying memory cgroups on cgroup v1, on this node.

Run: .venv/bin/python tests/benchmarks/bench_pressure.py. Exit status 1 if the median reading exceeds its budget. The
walk is also measured in a tree of the size that a node with 1000 containers has.
"""

import os
import sys
import tempfile
from pathlib import Path

import click
from spread import spread_ms

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.pressure import DyingMemcgs, live_directories, read_pressure

ROUNDS = 101
BUDGET_MS = 2.0
CONTAINERS = 1000
FILES = 40  # per memory cgroup


def plain_walk(root: Path) -> int:
    """For comparison: a walk that opens every directory."""
    return sum(1 for _ in os.walk(root))


def big_tree(root: Path) -> None:
    """Make as many directories and files as the memory cgroups of CONTAINERS containers have."""
    for number in range(CONTAINERS):
        container = root / "docker" / f"{number:064x}"
        container.mkdir(parents=True)
        for file in range(FILES):
            (container / f"memory.{file}").touch()


def main() -> int:
    """Print min / median / max of each; 1 if the budget is exceeded."""
    cgroups, root = Cgroups.read(), Path("/")
    reading = spread_ms(lambda: read_pressure(root, None, None), ROUNDS)
    count = spread_ms(lambda: DyingMemcgs(cgroups).count(), ROUNDS)
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        big_tree(tree)
        walk, plain = spread_ms(lambda: live_directories(tree), 15), spread_ms(lambda: plain_walk(tree), 15)
    click.echo("min / median / max, ms")
    rows = {
        "one reading, without the count": reading,
        f"the count, cgroup {cgroups.version}, this node": count,
        f"a walk of {CONTAINERS} containers": walk,
        "the same, opening every directory": plain,
    }
    for name, figures in rows.items():
        click.echo(f"  {name:36s}" + " / ".join(f"{figure:.3f}" for figure in figures))
    click.echo(f"  opened / walked: {plain[1] / walk[1]:.1f}; budget of a reading {BUDGET_MS:.0f} ms")
    return int(reading[1] > BUDGET_MS)


if __name__ == "__main__":
    sys.exit(main())
