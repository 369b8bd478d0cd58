"""The command line: subcommands, and one place where an error becomes one line and an exit status."""

import sys

import click

from kickwatch import __version__
from kickwatch.commands.check_config import check_config
from kickwatch.commands.doctor import doctor
from kickwatch.commands.reproduce import reproduce
from kickwatch.commands.run import daemon
from kickwatch.commands.trial import trial
from kickwatch.errors import KickwatchError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickwatch")
def cli() -> None:
    """Does creating a container here make the kernel interrupt every other CPU?

    kickwatch starts and stops real containers, records which IPIs the kernel sent meanwhile and why, and says whether
    the container-creation path broadcasts them.
    """


for command in (daemon, trial, reproduce, doctor, check_config):
    cli.add_command(command)


def main() -> None:
    """Entry point. KickwatchError becomes `kickwatch: what: remedy` and its exit status; no traceback."""
    try:
        cli(prog_name="kickwatch")
    except KickwatchError as error:
        click.echo(f"kickwatch: {error}", err=True)
        sys.exit(error.exit_status)
