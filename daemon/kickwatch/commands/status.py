"""`kickwatch status`: what the running daemon believes and does."""

import json
import sys
import time

import click
import msgspec

from kickwatch.commands.common import examples
from kickwatch.model import Condition
from kickwatch.outlets.status import Status, read
from kickwatch.report import passive_words
from kickwatch.report import status_words as words
from kickwatch.report.status_words import duration

EXIT_STATUS = {Condition.QUIET: 0, Condition.CONTENDED: 0, Condition.BROADCASTING: 3, Condition.UNKNOWN: 4}


@click.command(epilog=examples("kickwatch status", "kickwatch status --json | jq .condition"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1).")
def status(as_json: bool) -> None:
    """Show the running daemon's verdict and what it is doing. `kickwatch watch` is the live view.

    Exit status: 0 quiet or contended, 3 broadcasting, 4 unknown or no news from the daemon, 1 if no daemon runs.
    """
    found, now_unix_s = read(), time.time()
    click.echo(json.dumps(msgspec.to_builtins(found), indent=1) if as_json else text_of(found, now_unix_s))
    sys.exit(exit_status(found, now_unix_s))


def exit_status(found: Status, now_unix_s: float) -> int:
    """Of the condition. A daemon that should have written again, and has not, watches nothing: `quiet` is no news."""
    of_condition = EXIT_STATUS[found.condition]
    return EXIT_STATUS[Condition.UNKNOWN] if of_condition == 0 and words.late(found, now_unix_s) else of_condition


def _evidence(status: Status) -> list[str]:
    if not passive_words.is_passive(status) or status.progress is None:
        return [f"{status.trials} trials, {status.containers} containers since the evidence began"]
    return [f"containers of others: {passive_words.others(status.progress.others)}", passive_words.evidence(status)]


def text_of(status: Status, now_unix_s: float) -> str:
    """The status in lines for a person."""
    for_s, ago_s = now_unix_s - status.condition_since_unix_s, now_unix_s - status.updated_unix_s
    why = f" ({', '.join(status.reasons)})" if status.reasons else ""
    lines = [
        f"{status.condition}{why} for {duration(for_s)}: kickwatch {status.version}, pid {status.pid}",
        f"{words.meaning(status.condition)}{f': {words.why(status)}' if why else ''}",
        f"{status.doing} (updated {duration(ago_s)} ago)",
        *_evidence(status),
    ]
    if words.late(status, now_unix_s):
        lines.append(f"NO NEWS for {duration(ago_s)}: the daemon is stuck or stopped by a signal, or the node is busy")
    if status.verdict_age_s is not None:
        lines.append(words.confirmed(status, now_unix_s))
    if status.progress is not None:
        lines.append(words.next_trial(status.progress, ago_s))
    if status.more_containers:
        lines.append(words.needed(status))
    lines += [f"alert: {condition} ({', '.join(streams)})" for condition, streams in status.alerts.items()]
    return "\n".join(lines)
