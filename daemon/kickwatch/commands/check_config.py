"""`kickwatch check-config FILE`: validate a configuration file."""

from pathlib import Path

import click

from kickwatch.commands.common import examples
from kickwatch.configuration.limits import check_budget
from kickwatch.configuration.listen import parse_listen
from kickwatch.configuration.loading import load


@click.command(
    "check-config",
    epilog=examples(
        "kickwatch check-config /etc/kickwatch/kickwatch.toml", "kickwatch check-config deploy/kickwatch.toml"
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Validate a configuration file; for an error, print the key and how to fix it.

    Checks the file alone. What depends on the node, such as an address to listen on, `run` checks when it starts.

    Exit status: 0 valid, 2 not valid.
    """
    from kickwatch.workload.engine_choice import check_engine  # noqa: PLC0415 -- not for --help

    config = load(file).config
    check_budget(config)
    check_engine(config)
    if config.metrics.listen:
        parse_listen(config.metrics.listen)
    click.echo(f"{file}: valid")
