"""The command line: subcommands, and one place where an error becomes one line and an exit status."""

import sys
from importlib import import_module

import click

from kickwatch import __version__
from kickwatch.errors import KickwatchError

# Where each command is defined. A command's modules are loaded when it is called: the daemon, which stays, need not
# carry the simulator's.
COMMANDS = {
    "run": "run:daemon",
    "trial": "trial:trial",
    "status": "status:status",
    "reproduce": "reproduce:reproduce",
    "doctor": "doctor:doctor",
    "replay": "replay:replay",
    "simulate": "simulate:simulate",
    "check-config": "check_config:check_config",
}


class Commands(click.Group):
    """A group whose commands are found by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- likewise
        """Load one; None makes click complain of its name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"kickwatch.commands.{module}"), attribute)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickwatch")
def cli() -> None:
    """Does creating a container here make the kernel interrupt every other CPU?

    kickwatch starts and stops real containers, records which IPIs the kernel sent meanwhile and why, and says whether
    the container-creation path broadcasts them.
    """


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
