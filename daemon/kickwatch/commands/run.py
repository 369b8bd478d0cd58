"""`kickwatch run`: the daemon."""

from functools import partial
from pathlib import Path

import click

from kickwatch.allocator import share_one_arena
from kickwatch.commands.common import config_options, load_config, read_config, run
from kickwatch.service import run_daemon


@click.command("run")
@config_options
@click.option("--trials", type=click.IntRange(min=1), help="End after so many trials. Default: until a signal.")
def daemon(config_path: Path | None, sets: tuple[str, ...], trials: int | None) -> None:
    """Watch this node until a signal: trial after trial, alerts in the log.

    SIGHUP reads the configuration again, SIGUSR1 drains the node and ends the drain.
    """
    share_one_arena()
    read_config(config_path, sets, strict=False)  # complains, and sets up the log
    run(run_daemon(partial(load_config, config_path, sets, strict=False), trials))
