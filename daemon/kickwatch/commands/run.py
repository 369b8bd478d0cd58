"""`kickwatch run`: the daemon."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from kickwatch.commands.common import chosen_config, config_options, examples, load_config, read_config, run
from kickwatch.configuration.loading import Loaded
from kickwatch.errors import ConfigAbsentError, InterruptedRunError, KickwatchError
from kickwatch.journal.journal import Event, configure_logging, logger, reaches_journal
from kickwatch.process.allocator import keep_malloc_small


@click.command("run", epilog=examples("kickwatch run --trials 3", "kickwatch run --set metrics.listen=127.0.0.1:9893"))
@config_options
@click.option(
    "--trials", type=click.IntRange(min=1), metavar="N", help="End after N trials. Default: run until a signal."
)
def daemon(config_path: Path | None, sets: tuple[str, ...], trials: int | None) -> None:
    """Watch this node until a signal: run trial after trial, and log alerts.

    SIGHUP reloads the configuration. SIGUSR1 stops starting containers (drain); a second SIGUSR1 ends the drain. If
    the daemon was started from a terminal, it ends when that terminal closes, unless nohup or setsid is used.
    """
    from kickwatch.service.daemon import run_daemon  # noqa: PLC0415 -- not for --help

    keep_malloc_small()
    configure_logging()
    source = _Source(config_path, sets)
    with _failures_logged(), _absence_passes():
        read_config(source.choose(), sets, strict=False)  # raises what is wrong with it, and sets up the log
        run(run_daemon(source.load, trials))


@dataclass
class _Source:
    """Where the daemon reads its configuration. The default file, once it was there, is the file.

    Otherwise a file that disappears would turn into the defaults at a reload, and a passive node into one that starts
    containers.
    """

    path: Path | None
    sets: tuple[str, ...]

    def choose(self) -> Path | None:
        """The file to read now; None while there has never been one."""
        self.path = chosen_config(self.path)
        return self.path

    def load(self) -> Loaded:
        """Raises ConfigError, ConfigAbsentError if the file is away."""
        return load_config(self.choose(), self.sets, strict=False)


@contextmanager
def _absence_passes() -> Iterator[None]:
    """A file that is being replaced is missing or empty for a moment: exit status 1, so systemd starts the unit again.

    Status 2 keeps the service down (RestartPreventExitStatus=). A half-written file has it as well: it looks like an
    operator's error, which is to be a failed unit at once, and not a unit that restarts for ever.
    """
    try:
        yield
    except ConfigAbsentError as error:
        remedy = "put the file back (a comment in it stands for the defaults)"
        if "INVOCATION_ID" in os.environ:  # systemd.exec(5)
            remedy += "; systemd tries again in a minute"
        raise KickwatchError(error.what, remedy) from error


@contextmanager
def _failures_logged() -> Iterator[None]:
    """Log a fatal error to the journal, where one can search for the event; standard error gets its line anyway."""
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception as error:
        if reaches_journal(sys.stderr):
            what, remedy = repr(error), "please report it, with the traceback"
            if isinstance(error, KickwatchError):
                what, remedy = error.what, error.remedy
            logger().critical(Event.FAILED, what=what, remedy=remedy)
        raise
