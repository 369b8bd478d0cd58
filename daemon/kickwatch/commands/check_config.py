"""`kickwatch check-config FILE`: validate a configuration."""

from pathlib import Path

import click

from kickwatch.configuration.limits import check_budget
from kickwatch.configuration.listen import parse_listen
from kickwatch.configuration.loading import load
from kickwatch.workload.choose import check_engine


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Validate FILE: name the key and the remedy of whatever is wrong. Exit status: 0 valid, 2 not."""
    config = load(file).config
    check_budget(config)
    check_engine(config)
    parse_listen(config.metrics.listen)
    click.echo(f"{file}: valid")
