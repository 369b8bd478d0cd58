"""What the commands share: options, configuration, exit statuses."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from kickwatch.configuration.loading import Loaded, load
from kickwatch.configuration.types import Config
from kickwatch.errors import InterruptedRunError
from kickwatch.journal.journal import Event, configure_logging, logger
from kickwatch.model import Verdict
from kickwatch.node.roots import HOST

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_STATUS = {Verdict.QUIET: 0, Verdict.BROADCASTING: 3, Verdict.UNKNOWN: 4}
BISECT_STATUS = {Verdict.QUIET: 0, Verdict.BROADCASTING: 1, Verdict.UNKNOWN: 125}
DEFAULT_CONFIG = HOST.etc / "kickwatch" / "kickwatch.toml"


def config_options(command: Command) -> Command:
    """`--config FILE` and `--set KEY=VALUE`, on every command that reads the configuration."""
    with_set = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one key, e.g. workload.network=bridge. May be repeated.",
    )(command)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Configuration file. Default: {DEFAULT_CONFIG}, if it exists.",
    )(with_set)


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def check_environment() -> None:
    """Raise ConfigError for an environment in which no command can work."""
    HOST.check()


def load_config(config_path: Path | None, sets: tuple[str, ...], *, strict: bool = True) -> Loaded:
    """Read the configuration: this file, if one is given, the environment, the options."""
    return load(config_path, sets, os.environ, strict=strict)


def chosen_config(config_path: Path | None) -> Path | None:
    """The file of the command line, else the default one if it exists now."""
    return DEFAULT_CONFIG if config_path is None and DEFAULT_CONFIG.exists() else config_path


def read_config(config_path: Path | None, sets: tuple[str, ...], *, strict: bool = True) -> Config:
    """The configuration a command runs with. Sets up logging as configured, and logs the warnings."""
    loaded = load_config(chosen_config(config_path), sets, strict=strict)
    configure_logging(form=loaded.config.log.format, level=loaded.config.log.level)
    for warning in loaded.warnings:
        logger().warning(Event.CONFIG_WARNING, what=warning)
    return loaded.config


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop. After a signal, and its clean-up, raises InterruptedRunError."""
    try:
        return asyncio.run(work)
    except asyncio.CancelledError as error:
        raise InterruptedRunError("interrupted", "everything it started has been removed") from error


def complain(text: str) -> None:
    """Print one line to standard error: why the command fails."""
    click.echo(f"kickwatch: {' '.join(text.split())}", err=True)


def say(text: str) -> None:
    """Print progress to standard error if it is a terminal; a log gets events only."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
