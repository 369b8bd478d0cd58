"""`kickwatch run`: the daemon."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from kickwatch.commands.common import chosen_config, config_options, examples, load_config, read_config, run
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
    config_path = chosen_config(config_path)  # once: a file that disappears must not turn into the defaults at a reload
    with _failures_logged(), _absence_passes():
        read_config(config_path, sets, strict=False)  # raises what is wrong with it, and sets up the log
        run(run_daemon(partial(load_config, config_path, sets, strict=False), trials))


@contextmanager
def _absence_passes() -> Iterator[None]:
    """A file that is being replaced is missing or empty for a moment: exit status 1, so systemd starts the unit again.

    Status 2 keeps the service down (RestartPreventExitStatus=). A half-written file has it as well: it looks like an
    operator's error, which is to be a failed unit at once, and not a unit that restarts for ever.
    """
    try:
        yield
    except ConfigAbsentError as error:
        remedy = "put the file back (a comment in it stands for the defaults); systemd tries again in a minute"
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
