"""`kickwatch reproduce`: the test of 2017, as published."""

import sys
from pathlib import Path

import click

from kickwatch.commands.common import config_options, examples


@click.command(epilog=examples("kickwatch reproduce", "kickwatch reproduce -n 1000"))
@config_options
@click.option(
    "-n",
    "--loops",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Memory cgroups to create.",
)
@click.option("--force", is_flag=True, help="Run even if they would take more than a tenth of the free memory.")
def reproduce(config_path: Path | None, sets: tuple[str, ...], loops: int, force: bool) -> None:
    """Create and use memory cgroups in a loop, as in Greg Thelen's test of 2017, and count the IPIs.

    Prints the IPIs on CPU 0, as published, and on all CPUs. The verdict rests on what the probe attributes, if it
    counts the positive control exactly and the counters of /proc/interrupts do not contradict it. Otherwise it rests on
    these counters, or is unknown.

    Exit status: 0 patched, 3 unpatched, 4 unknown.
    """
    from kickwatch.commands import reproduction  # noqa: PLC0415 -- not for --help
    from kickwatch.experiment.reproduce import Settings  # noqa: PLC0415

    settings = Settings(loops=loops, force=force)
    sys.exit(reproduction.run_and_report(config_path, sets, settings))
