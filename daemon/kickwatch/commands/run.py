"""`kickwatch run`: the daemon."""

from pathlib import Path

import click

from kickwatch.commands.common import config_options, read_config, run
from kickwatch.service import run_daemon


@click.command("run")
@config_options
@click.option("--trials", type=click.IntRange(min=1), help="End after so many trials. Default: until a signal.")
def daemon(config_path: Path | None, sets: tuple[str, ...], trials: int | None) -> None:
    """Watch this node until a signal: trial after trial, alerts in the log."""
    run(run_daemon(read_config(config_path, sets, strict=False), trials))
