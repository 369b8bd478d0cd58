"""`kickwatch doctor`: what this node allows, what is missing and how to get it."""

import json
import sys
from pathlib import Path

import click
import msgspec

from kickwatch.commands.common import config_options, read_config, run
from kickwatch.node.capabilities import blind, examine

BLIND_STATUS = 4


@click.command()
@config_options
@click.option("--control", is_flag=True, help="Also run the positive control: known requests that must be counted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(config_path: Path | None, sets: tuple[str, ...], control: bool, as_json: bool) -> None:
    """Say what this node allows, what is missing and how to get it.

    Exit status: 0, or 4 when kickwatch is blind here.
    """
    found = run(examine(read_config(config_path, sets), control=control))
    if as_json:
        click.echo(
            json.dumps({"schema": 1, "blind": blind(found), "capabilities": msgspec.to_builtins(found)}, indent=1)
        )
    else:
        for capability in found:
            mark = "ok     " if capability.satisfied else "MISSING"
            click.echo(f"{mark}  {capability.name}: {capability.detail}")
            if capability.remedy:
                click.echo(f"         remedy: {capability.remedy}")
        click.echo("blind: a verdict is not possible here" if blind(found) else "kickwatch can do its whole job here")
    sys.exit(BLIND_STATUS if blind(found) else 0)
