"""What `kickwatch reproduce` does. Loaded when it is called."""

import asyncio
import sys

import click

from kickwatch.commands.common import run
from kickwatch.experiment.native_loops import run as run_loops
from kickwatch.experiment.reproduce import Settings
from kickwatch.experiment.reproduce_report import Patch, Reproduction, report, verdict
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.observe.observatory import Observatory
from kickwatch.process.signals import until_signalled
from kickwatch.terminal.reproduce_progress import reproduce_progress

EXIT_STATUS = {Patch.PATCHED: 0, Patch.UNPATCHED: 3, Patch.UNKNOWN: 4}


def run_and_report(loops: int, *, force: bool) -> int:
    """Run the test and print its report; returns the exit status."""
    outcome = run(_reproduce(Settings(loops=loops, force=force)))
    click.echo(report(outcome))
    return EXIT_STATUS[verdict(outcome).patch]


async def _reproduce(settings: Settings) -> Reproduction:
    with NodeLock():
        leave_isolated_cpus(await asyncio.to_thread(isolated_cpus))
        observatory = await Observatory.open()
        for loss in observatory.losses:
            click.echo(f"note: {loss}", err=True)
        try:
            with reproduce_progress(settings.loops, sys.stderr) as show:
                work = run_loops(Cgroups.read(), settings, progress=show, broadcasts=observatory.creation_broadcasts)
                return await until_signalled(work)
        finally:
            observatory.close()
