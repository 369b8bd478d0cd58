"""`kickwatch run`: the daemon."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from kickwatch.commands.common import config_options, load_config, read_config, run
from kickwatch.errors import InterruptedRunError, KickwatchError
from kickwatch.journal.journal import Event, configure_logging, logger, reaches_journal
from kickwatch.process.allocator import share_one_arena
from kickwatch.service.service import run_daemon


@click.command("run")
@config_options
@click.option("--trials", type=click.IntRange(min=1), help="End after so many trials. Default: until a signal.")
def daemon(config_path: Path | None, sets: tuple[str, ...], trials: int | None) -> None:
    """Watch this node until a signal: trial after trial, alerts in the log.

    SIGHUP reads the configuration again, SIGUSR1 drains the node and ends the drain. When the terminal closes at which
    it was started, it ends; under nohup or setsid it goes on.
    """
    share_one_arena()
    configure_logging()
    with _failures_told():
        read_config(config_path, sets, strict=False)  # complains, and sets up the log
        run(run_daemon(partial(load_config, config_path, sets, strict=False), trials))


@contextmanager
def _failures_told() -> Iterator[None]:
    """In the journal an end by an error is a record that can be found; the last line on standard error is none."""
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
