"""`kickwatch run`: the daemon."""

from pathlib import Path

import click

from kickwatch.alert.journal import Event, configure_logging, logger
from kickwatch.commands.common import config_options, load_config, run
from kickwatch.service import run_daemon


@click.command("run")
@config_options
@click.option("--trials", type=click.IntRange(min=1), help="End after so many trials. Default: until a signal.")
def daemon(config_path: Path | None, sets: tuple[str, ...], trials: int | None) -> None:
    """Watch this node until a signal: trial after trial, alerts in the log."""
    loaded = load_config(config_path, sets, strict=False)
    configure_logging(form=loaded.config.log.format, level=loaded.config.log.level)
    for warning in loaded.warnings:
        logger().warning(Event.CONFIG_WARNING, what=warning)
    run(run_daemon(loaded.config, trials))
