"""`kickwatch report`: tables and plots over a history."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch.commands.common import config_options, read_config
from kickwatch.commands.replay import Replay, without_collector
from kickwatch.configuration.types import Config
from kickwatch.detect.rates import Pace
from kickwatch.errors import KickwatchError
from kickwatch.history.history import FILE
from kickwatch.history.record_reader import open_records
from kickwatch.process.atomic_file import write_whole
from kickwatch.report.collect import Collector
from kickwatch.report.history_text import history_text
from kickwatch.report.overview import overview
from kickwatch.service.pace import pace_of

EXAMPLES = """\b
Examples:
  kickwatch report --html report.html      # of this node's daemon, as one file
  kickwatch report --compare 6.1.0-25-amd64 6.1.0-26-amd64 /var/lib/kickwatch
"""


@click.command(epilog=EXAMPLES)
@config_options
@click.argument("history", type=click.Path(path_type=Path), required=False)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one self-contained HTML file.")
@click.option("--text", "as_text", is_flag=True, help="Print tables. The default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1).")
def report(
    config_path: Path | None,
    sets: tuple[str, ...],
    history: Path | None,
    html: Path | None,
    as_text: bool,
    as_json: bool,
) -> None:
    """Show what HISTORY holds: verdicts, kernels, bills, waits, latency, evidence.

    HISTORY is a state directory, its history.db, a copy of one, or trial records as JSON lines. Default: the configured
    state directory. It is only read, also while the daemon runs.

    Exit status: 0.
    """
    config = read_config(config_path, sets)
    found = collected(history or Path(config.state.directory), config)
    print_or_write(found, html, as_json=as_json)


def collected(path: Path, config: Config) -> dict[str, Any]:
    """The report on one history."""
    again, seen = Replay(pace_of(config)), Collector()
    with open_records(history_file(path)) as rows, without_collector():
        for row in rows:
            seen.add(row.trial, again.step(row), again.figures, row.pace)
    seen.finish(again.figures)
    return overview(seen, msgspec.to_builtins(again.result()))


def history_file(path: Path) -> Path:
    """The file with the trials: of a state directory its history."""
    return path / FILE if path.is_dir() else path


def print_or_write(found: dict[str, Any], html: Path | None, *, as_json: bool) -> None:
    """The report as an HTML file, as JSON, or as text."""
    if html is not None:
        from kickwatch.report.html.page import page  # noqa: PLC0415 -- the plots' library is an extra

        write_file(html, page(found))
        return
    click.echo(json.dumps(found, indent=1) if as_json else history_text(found))


def write_file(path: Path, text: str) -> None:
    """Replace the file. Raises KickwatchError."""
    try:
        write_whole(path, text.encode(), 0o644)
    except OSError as error:
        what = f"{path} cannot be written ({error.strerror})"
        raise KickwatchError(what, "give a file in a directory that you may write") from error
