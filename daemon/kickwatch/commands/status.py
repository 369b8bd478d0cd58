"""`kickwatch status`: what the running daemon believes and does."""

import json
import sys
import time

import click
import msgspec

from kickwatch.model import Condition
from kickwatch.outlets.status import Status, read

EXIT_STATUS = {Condition.QUIET: 0, Condition.CONTENDED: 0, Condition.BROADCASTING: 3, Condition.UNKNOWN: 4}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1).")
def status(as_json: bool) -> None:
    """Show the running daemon's verdict and what it is doing.

    Exit status: 0 quiet or contended, 3 broadcasting, 4 unknown, 1 if no daemon runs.
    """
    found = read()
    click.echo(json.dumps(msgspec.to_builtins(found), indent=1) if as_json else text_of(found, time.time()))
    sys.exit(EXIT_STATUS[found.condition])


def text_of(status: Status, now_unix_s: float) -> str:
    """The status in lines for a person."""
    for_s, ago_s = now_unix_s - status.condition_since_unix_s, now_unix_s - status.updated_unix_s
    why = f" ({', '.join(status.reasons)})" if status.reasons else ""
    lines = [
        f"{status.condition}{why} for {duration(for_s)}: kickwatch {status.version}, pid {status.pid}",
        f"{status.doing} (updated {duration(ago_s)} ago)",
        f"{status.trials} trials, {status.containers} containers since the evidence began",
    ]
    if status.verdict_age_s is not None:
        lines.append(f"last confirmed by a trial {duration(status.verdict_age_s + ago_s)} ago")
    if status.more_containers:
        lines.append(f"quiet needs {status.more_containers} more containers without a broadcast")
    lines += [f"alert: {condition} ({', '.join(streams)})" for condition, streams in status.alerts.items()]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`3 d 4 h`, `12 min`, `5 s`: a span in its largest one or two units."""
    seconds = max(0, round(seconds))
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} {seconds % unit_s // smaller_s} {smaller}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"
