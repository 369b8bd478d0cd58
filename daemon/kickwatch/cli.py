"""The command line: the subcommands, and the one place that turns an error into a line and an exit status."""

import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from kickwatch import __version__
from kickwatch.commands.common import check_environment, complain
from kickwatch.errors import KickwatchError, ReaderGoneError
from kickwatch.journal.journal import configure_logging
from kickwatch.process import standard_streams

# Where each command is defined, and its line in `kickwatch --help`. A command's modules are loaded when it is called:
# the daemon does not carry the simulator's, and `--help` loads none.
COMMANDS = {
    "run": ("run:daemon", "Watch this node: run trials until stopped, log alerts."),
    "trial": ("trial:trial", "Run one experiment now; print its figures and the verdict."),
    "gate": ("gate:gate", "Let a kernel or image pass, or stop it; for pipelines."),
    "trace": ("trace:trace", "Draw the lives of a few containers on a timeline, for Perfetto."),
    "status": ("status:status", "Show the running daemon's verdict and what it is doing."),
    "watch": ("watch:watch", "Show the running daemon live."),
    "reproduce": ("reproduce:reproduce", "Run the test published in 2017, on bare memory cgroups."),
    "doctor": ("doctor:doctor", "Check what this node supports, and how to fix what it lacks."),
    "report": ("report:report", "Tables, plots and a bug report from the history."),
    "replay": ("replay:replay", "Recompute every verdict from stored trial records."),
    "simulate": ("simulate:simulate", "Simulate the detectors: false alarms and detection delays."),
    "completion": ("completion:completion", "Print the completion script for bash, zsh or fish."),
    "check-config": ("check_config:check_config", "Validate a configuration file."),
}


class Commands(click.Group):
    """A group that loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """The commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        """Load one; for None click reports an unknown command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"kickwatch.commands.{module}"), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and options that begin with `incomplete`, without loading a command."""
        found = [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's signature
        """List the commands from the table, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. Click would take any EPIPE for one on standard output, and exit without a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # not standard output, which raises ReaderGoneError
            raise RuntimeError("unexpected EPIPE from a socket or pipe of kickwatch") from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  kickwatch doctor\n  kickwatch trial --until-decided",
)
@click.version_option(__version__, prog_name="kickwatch")
def cli() -> None:
    """Does creating a container here make the kernel interrupt every other CPU?

    kickwatch starts and stops real containers, records which inter-processor interrupts (IPIs) the kernel sends
    meanwhile and why, and reports whether the kernel's container-creation path broadcasts them.

    Start with `kickwatch doctor`, then `kickwatch trial`. Exit status 2 is a usage or configuration error, 1 any other
    failure; each command lists its own.
    """
    check_environment()


def main() -> None:
    """Entry point. An expected error becomes one line, `kickwatch: what: remedy`, and its exit status."""
    standard_streams.prepare()
    configure_logging()  # again with its own settings in a command that reads a configuration
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
