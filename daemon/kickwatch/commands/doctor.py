"""`kickwatch doctor`: what this node supports, what is missing, and how to fix it."""

import json
import sys
from pathlib import Path

import click
import msgspec

from kickwatch.commands.common import config_options, examples, read_config, run

BLIND_STATUS = 4


@click.command(
    epilog=examples(
        "kickwatch doctor --control",
        "kickwatch doctor --json | jq '.capabilities[] | select(.satisfied == false)'",
    )
)
@config_options
@click.option(
    "--control",
    is_flag=True,
    help="Also run the positive control: known requests that must be counted.",
)
@click.option(
    "--container/--no-container",
    default=True,
    show_default=True,
    help="Start one container, and remove it: only that shows a sandbox that hides it, or a missing controller.",
)
@click.option(
    "--reasons",
    is_flag=True,
    help="Also explain the known reasons for IPIs, with their functions in this kernel.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    config_path: Path | None, sets: tuple[str, ...], *, control: bool, container: bool, reasons: bool, as_json: bool
) -> None:
    """Check what this node supports, what is missing, and how to fix it.

    Prints what is missing first, the worst on top: what was found, what that costs, and how to fix it. Also prints how
    the false-alarm rate is divided among the detectors at the configured pace. As root, where systemd runs, it also
    tries whether the service's capabilities, which are fewer, arm the same probes, and whether it can drive the same
    engine; the rest of its sandbox is not tried.

    Starts one container as a trial does, and removes it with its image and cgroup; not if workload.enabled is false,
    while another kickwatch runs, on a drained node, or under pressure (guard). The output says so.

    Exit status: 0, or 4 if kickwatch cannot reach a verdict here, or in passive mode raise an alert (blind).
    """
    # Not for --help.
    from kickwatch.commands.examination import examination  # noqa: PLC0415
    from kickwatch.detect.monitor import Monitor  # noqa: PLC0415
    from kickwatch.experiment.capability import blind  # noqa: PLC0415
    from kickwatch.experiment.known_reasons import read_known_reasons  # noqa: PLC0415
    from kickwatch.service.pace import pace_of  # noqa: PLC0415
    from kickwatch.terminal.doctor_screen import doctor_screen, reasons_screen  # noqa: PLC0415

    config = read_config(config_path, sets)
    tried, found = run(examination(config, control=control, container=container))
    known = run(read_known_reasons()) if reasons else None
    shares = Monitor(pace_of(config)).shares
    if as_json:
        result = {"schema": 1, "blind": blind(found), "capabilities": msgspec.to_builtins(found)}
        result |= {"streams": msgspec.to_builtins(shares), "container": msgspec.to_builtins(tried)}
        click.echo(json.dumps(result | ({} if known is None else {"reasons": msgspec.to_builtins(known)}), indent=1))
    else:
        click.echo(doctor_screen(found, shares, sys.stdout, passive=not config.workload.enabled), nl=False)
        if known is not None:
            click.echo(reasons_screen(known, sys.stdout), nl=False)
    sys.exit(BLIND_STATUS if blind(found) else 0)
