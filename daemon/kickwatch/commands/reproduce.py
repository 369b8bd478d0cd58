"""`kickwatch reproduce`: the test of 2017, as published."""

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext

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

EXIT_STATUS = {Patch.PATCHED: 0, Patch.UNPATCHED: 3, Patch.UNKNOWN: 4}


@click.command()
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
def reproduce(loops: int, force: bool) -> None:
    """Create and use memory cgroups in a loop, as in Greg Thelen's test of 2017, and count the IPIs.

    Prints the IPIs on CPU 0, as published, and on all CPUs.

    Exit status: 0 patched, 3 unpatched, 4 unknown.
    """
    outcome = run(_reproduce(Settings(loops=loops, force=force)))
    click.echo(report(outcome))
    sys.exit(EXIT_STATUS[verdict(outcome).patch])


async def _reproduce(settings: Settings) -> Reproduction:
    with NodeLock(), _Bar(settings.loops) as bar:
        leave_isolated_cpus(await asyncio.to_thread(isolated_cpus))
        observatory = await Observatory.open()
        for loss in observatory.losses:
            click.echo(f"note: {loss}", err=True)
        try:
            work = run_loops(Cgroups.read(), settings, progress=bar.show, broadcasts=observatory.creation_broadcasts)
            return await until_signalled(work)
        finally:
            observatory.close()


class _Bar:
    """A progress bar on a terminal; elsewhere one line per phase."""

    def __init__(self, loops: int) -> None:
        bar = click.progressbar(length=loops, label="creating", file=sys.stderr)
        self._bar: AbstractContextManager[object] = bar if sys.stderr.isatty() else nullcontext()
        self._shown = bar if sys.stderr.isatty() else None
        self._done = 0

    def __enter__(self) -> "_Bar":
        self._bar.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self._bar.__exit__(None, None, None)

    def show(self, what: str, done: int, _of: int) -> None:
        """Phase `what` has reached `done`."""
        if what == "create":
            if self._shown is not None:
                self._shown.update(done - self._done)
            self._done = done
        elif what == "settle":
            click.echo("\nwaiting up to 40 s for the kernel's asynchronous work", err=True)
        elif what == "remove":
            click.echo("removing the memory cgroups", err=True)
