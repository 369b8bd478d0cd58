"""The command line: subcommands, and one place where an error becomes one line and an exit status."""

import sys

import click

from kickwatch import __version__
from kickwatch.commands.check_config import check_config
from kickwatch.commands.doctor import doctor
from kickwatch.commands.replay import replay
from kickwatch.commands.reproduce import reproduce
from kickwatch.commands.run import daemon
from kickwatch.commands.trial import trial
from kickwatch.detect.simulate.command import simulate
from kickwatch.errors import KickwatchError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickwatch")
def cli() -> None:
    """Does creating a container here make the kernel interrupt every other CPU?

    kickwatch starts and stops real containers, records which IPIs the kernel sent meanwhile and why, and says whether
    the container-creation path broadcasts them.
    """


for command in (daemon, trial, reproduce, doctor, replay, simulate, check_config):
    cli.add_command(command)


def main() -> None:
    """Entry point. Every error becomes one line, `kickwatch: what: remedy`, and its exit status; no traceback."""
    try:
        sys.exit(cli.main(prog_name="kickwatch", standalone_mode=False))
    except KickwatchError as error:
        _complain(str(error), error.exit_status)
    except click.UsageError as error:
        usage = f"see `{error.ctx.command_path} --help`" if error.ctx is not None else "see `kickwatch --help`"
        _complain(f"{error.format_message().rstrip('.')}: {usage}", error.exit_code)
    except click.Abort:
        _complain("interrupted", 1)


def _complain(text: str, status: int) -> None:
    click.echo(f"kickwatch: {' '.join(text.split())}", err=True)
    sys.exit(status)
