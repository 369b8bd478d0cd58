"""`kickwatch doctor`: what this node supports, what is missing, and how to fix it."""

import json
import sys
import textwrap
from pathlib import Path

import click
import msgspec

from kickwatch.commands.common import config_options, read_config, run
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.rates import Share
from kickwatch.experiment.capabilities import Capability, blind, examine
from kickwatch.experiment.known_reasons import KnownReason, read_known_reasons
from kickwatch.report.tables import table
from kickwatch.service.pace import pace_of

BLIND_STATUS = 4


@click.command()
@config_options
@click.option(
    "--control",
    is_flag=True,
    help="Also run the positive control: known requests that must be counted.",
)
@click.option(
    "--reasons",
    is_flag=True,
    help="Also explain the known reasons for IPIs, with their functions in this kernel.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(config_path: Path | None, sets: tuple[str, ...], control: bool, reasons: bool, as_json: bool) -> None:
    """Check what this node supports, what is missing, and how to fix it.

    Also prints how the false-alarm rate is divided among the detectors at the configured pace.

    Exit status: 0, or 4 if kickwatch cannot reach a verdict here (blind).
    """
    config = read_config(config_path, sets)
    found = run(examine(config, control=control))
    known = run(read_known_reasons()) if reasons else None
    shares = Monitor(pace_of(config)).shares
    if as_json:
        result = {"schema": 1, "blind": blind(found), "capabilities": msgspec.to_builtins(found)}
        result |= {"streams": msgspec.to_builtins(shares)}
        click.echo(json.dumps(result | ({} if known is None else {"reasons": msgspec.to_builtins(known)}), indent=1))
    else:
        _print(found, shares)
        if known is not None:
            _print_reasons(known)
    sys.exit(BLIND_STATUS if blind(found) else 0)


def _print(found: list[Capability], shares: tuple[Share, ...]) -> None:
    for capability in found:
        mark = "ok     " if capability.satisfied else "MISSING"
        click.echo(f"{mark}  {capability.name}: {capability.detail}")
        if capability.remedy:
            click.echo(f"         remedy: {capability.remedy}")
    click.echo("blind: no verdict is possible here" if blind(found) else "kickwatch has all it needs here")
    click.echo("\nat most one false alarm in 1000 node-years, divided among the detectors' streams at this pace:")
    rows = [(share.name, f"{share.observations_per_year:.0f}", f"{share.threshold:.2e}") for share in shares]
    click.echo(table(("stream", "observations/year", "threshold"), rows))


def _print_reasons(known: list[KnownReason]) -> None:
    click.echo("\nreasons for IPIs that kickwatch knows, each with its functions in this kernel:")
    for reason in known:
        functions = ", ".join(reason.functions) or "not in this kernel"
        click.echo(f"\n{reason.reason}" + ("" if functions == reason.reason else f" ({functions})"))
        for text in (reason.meaning, reason.history):
            click.echo(textwrap.fill(f"{text}.", 100, initial_indent="    ", subsequent_indent="    "))
