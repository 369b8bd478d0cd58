"""What every command shares: options, configuration, exit statuses."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from kickwatch.config import Config, Loaded, load
from kickwatch.model import Verdict

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_STATUS = {Verdict.QUIET: 0, Verdict.BROADCASTING: 3, Verdict.UNKNOWN: 4}
BISECT_STATUS = {Verdict.QUIET: 0, Verdict.BROADCASTING: 1, Verdict.UNKNOWN: 125}
DEFAULT_CONFIG = Path("/etc/kickwatch/kickwatch.toml")


def config_options(command: Command) -> Command:
    """`--config FILE` and `--set KEY=VALUE`, on every command that reads the configuration."""
    with_set = click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one key, e.g. workload.network=bridge."
    )(command)
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        help=f"Configuration file. Default: {DEFAULT_CONFIG} if it exists.",
    )(with_set)


def load_config(config_path: Path | None, sets: tuple[str, ...], *, strict: bool = True) -> Loaded:
    """The configuration a command runs with."""
    if config_path is None and DEFAULT_CONFIG.exists():
        config_path = DEFAULT_CONFIG
    return load(config_path, sets, strict=strict)


def read_config(config_path: Path | None, sets: tuple[str, ...]) -> Config:
    """As load_config, for commands that accept no unknown key."""
    return load_config(config_path, sets).config


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own."""
    return asyncio.run(work)


def say(text: str) -> None:
    """Progress, to standard error: results alone go to standard output."""
    click.echo(text, err=True)
