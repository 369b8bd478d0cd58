"""`kickwatch status`: the running daemon's condition."""

import json
import sys
import time

import click
import msgspec

from kickwatch.model import Condition
from kickwatch.service.status import Status, read

EXIT_STATUS = {Condition.QUIET: 0, Condition.CONTENDED: 0, Condition.BROADCASTING: 3, Condition.UNKNOWN: 4}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1).")
def status(as_json: bool) -> None:
    """Print what the running daemon believes and does.

    Exit status: 0 quiet or contended, 3 broadcasting, 4 unknown, 1 where none runs.
    """
    told = read()
    click.echo(json.dumps(msgspec.to_builtins(told), indent=1) if as_json else text_of(told, time.time()))
    sys.exit(EXIT_STATUS[told.condition])


def text_of(told: Status, now_unix_s: float) -> str:
    """For people."""
    for_s, ago_s = now_unix_s - told.condition_since_unix_s, now_unix_s - told.updated_unix_s
    why = f" ({', '.join(told.reasons)})" if told.reasons else ""
    lines = [
        f"{told.condition}{why} for {duration(for_s)}: kickwatch {told.version}, pid {told.pid}",
        f"{told.doing} (told {duration(ago_s)} ago)",
        f"{told.trials} trials, {told.containers} containers since the evidence began",
    ]
    if told.verdict_age_s is not None:
        lines.append(f"last confirmed by a trial {duration(told.verdict_age_s + ago_s)} ago")
    if told.more_containers:
        lines.append(f"{told.more_containers} more silent containers are needed for quiet")
    lines += [f"alert: {condition} ({', '.join(streams)})" for condition, streams in told.alerts.items()]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`3 d 4 h`, `12 min`, `5 s`: the two largest units of a span, or one."""
    seconds = max(0, round(seconds))
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} {seconds % unit_s // smaller_s} {smaller}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"
