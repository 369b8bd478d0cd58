"""The command line: subcommands, and one place where an error becomes one line and an exit status."""

import sys
from importlib import import_module
from typing import Any

import click

from kickwatch import __version__
from kickwatch.commands.common import complain
from kickwatch.errors import KickwatchError, ReaderGoneError
from kickwatch.journal.journal import configure_logging
from kickwatch.process import standard_streams

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

    def invoke(self, ctx: click.Context) -> Any:
        """As click does. It takes any EPIPE for a reader of standard output that is gone, and ends without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # standard output raises ReaderGoneError: this is a socket or pipe of ours
            raise RuntimeError("a connection broke, and nothing was ready for it") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickwatch")
def cli() -> None:
    """Does creating a container here make the kernel interrupt every other CPU?

    kickwatch starts and stops real containers, records which IPIs the kernel sent meanwhile and why, and says whether
    the container-creation path broadcasts them.
    """


def main() -> None:
    """Entry point. Every error becomes one line, `kickwatch: what: remedy`, and its exit status; no traceback."""
    standard_streams.prepare()
    configure_logging()  # a command that reads a configuration does it again, with what that says
    try:
        status = _run()
        sys.stdout.flush()
    except ReaderGoneError as error:
        status = error.exit_status
    except KickwatchError as error:
        complain(str(error))
        status = error.exit_status
    except click.UsageError as error:
        usage = f"see `{error.ctx.command_path} --help`" if error.ctx is not None else "see `kickwatch --help`"
        complain(f"{error.format_message().rstrip('.')}: {usage}")
        status = error.exit_code
    except click.Abort:
        complain("interrupted")
        status = 1
    sys.exit(status)


def _run() -> int:
    """The exit status of the command."""
    try:
        cli.main(prog_name="kickwatch", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
