"""What `kickwatch reproduce` does. Loaded when it is called."""

import asyncio
import sys
from pathlib import Path

import click

from kickwatch.commands.common import read_config, run
from kickwatch.configuration.types import Config
from kickwatch.experiment.armed_observers import chosen_cpus, listed_cpus
from kickwatch.experiment.native_loops import run as run_loops
from kickwatch.experiment.reproduce import Settings
from kickwatch.experiment.reproduce_report import report
from kickwatch.experiment.reproduce_verdict import Patch, Reproduction, verdict
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.node.roots import HOST
from kickwatch.observe.control import positive_control
from kickwatch.observe.observatory import Observatory
from kickwatch.process.signals import until_signalled
from kickwatch.terminal.reproduce_progress import reproduce_progress

EXIT_STATUS = {Patch.PATCHED: 0, Patch.UNPATCHED: 3, Patch.UNKNOWN: 4}


def run_and_report(config_path: Path | None, sets: tuple[str, ...], settings: Settings) -> int:
    """Run the test and print its report; returns the exit status."""
    outcome = run(_reproduce(read_config(config_path, sets), settings))
    click.echo(report(outcome))
    return EXIT_STATUS[verdict(outcome).patch]


async def _reproduce(config: Config, settings: Settings) -> Reproduction:
    listed = listed_cpus(config)
    with NodeLock():
        leave_isolated_cpus(await asyncio.to_thread(isolated_cpus, HOST, listed))
        observatory = await Observatory.open(listed=listed)
        for loss in observatory.losses:
            click.echo(f"note: {loss}", err=True)
        try:
            control = await positive_control(observatory, chosen_cpus(config))
            with reproduce_progress(settings.loops, sys.stderr) as show:
                counts = observatory.request_counts
                work = run_loops(Cgroups.read(), settings, progress=show, probed=counts, control=control)
                return await until_signalled(work)
        finally:
            observatory.close()
