"""`kickwatch report`: tables, plots, a comparison, or a bug report from a history."""

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch.commands.common import config_options, read_config
from kickwatch.commands.replay import Replay, without_collector
from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.history.history import FILE
from kickwatch.history.record_reader import open_records
from kickwatch.node.kernel_config import kernel_config
from kickwatch.process.atomic_file import write_whole
from kickwatch.report.bug import bug_text
from kickwatch.report.bug_subject import subject_of
from kickwatch.report.collect import Collector
from kickwatch.report.compare import comparison
from kickwatch.report.compare_text import comparison_text
from kickwatch.report.history_text import history_text
from kickwatch.report.overview import overview
from kickwatch.report.pauses import pauses_of
from kickwatch.service.pace import pace_of

EXAMPLES = """\b
Examples:
  kickwatch report --html report.html
  kickwatch report --compare 6.1.0-25-amd64 6.1.0-26-amd64 /srv/copy
"""


@click.command(epilog=EXAMPLES)
@config_options
@click.argument("history", type=click.Path(path_type=Path), required=False)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one self-contained HTML file.")
@click.option("--text", "as_text", is_flag=True, help="Print tables. The default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1).")
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Put two kernel releases of HISTORY, or two histories, side by side.",
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The daemon's log, for the guard's pauses: its JSON lines, or `journalctl -t kickwatch -o json`.",
)
@click.option("--bug", is_flag=True, help="Print text for a kernel mailing list, with nothing private in it.")
def report(  # noqa: PLR0917 -- click passes by keyword
    config_path: Path | None,
    sets: tuple[str, ...],
    history: Path | None,
    html: Path | None,
    as_text: bool,
    as_json: bool,
    compare: tuple[str, str] | None,
    log: Path | None,
    bug: bool,
) -> None:
    """Show what HISTORY holds: verdicts, kernels, bills, waits, latency, evidence.

    HISTORY is a state directory, its history.db, a copy of one, or trial records as JSON lines. Default: the configured
    state directory. It is only read, also while the daemon runs.

    Exit status: 0.
    """
    if sum((html is not None, as_text, as_json, bug)) > 1:
        raise click.UsageError("--html, --text, --json and --bug exclude each other")
    if bug and compare:
        raise click.UsageError("--bug and --compare exclude each other")
    config = read_config(config_path, sets)
    path = history or Path(config.state.directory)
    if compare:
        _print_comparison(compare, path, config, html, as_json=as_json)
        return
    found = collected(path, config, log=log)
    if bug:
        click.echo(_bug(found, path))
    elif html is not None:
        from kickwatch.report.html.page import page  # noqa: PLC0415 -- only this way needs the plots

        write_file(html, page(found))
    else:
        click.echo(json.dumps(found, indent=1) if as_json else history_text(found))


def collected(path: Path, config: Config, kernel: str = "", log: Path | None = None) -> dict[str, Any]:
    """The report on one history, or on the trials of one kernel release of it."""
    pauses = None if log is None else _pauses(log)
    again, seen = Replay(pace_of(config)), Collector()
    with open_records(history_file(path)) as rows, without_collector():
        for row in rows:
            outcome = again.step(row)
            if not kernel or row.trial.node.kernel == kernel:
                seen.add(row.trial, outcome, again.figures, row.pace)
    if not kernel:
        seen.conclude(again.figures)
    return overview(seen, msgspec.to_builtins(again.result()), pauses)


def _pauses(log: Path) -> list[dict[str, Any]]:
    try:
        with log.open("rb") as lines:
            return pauses_of(lines)
    except OSError as error:
        remedy = "give the daemon's log, or the output of journalctl -t kickwatch -o json"
        raise KickwatchError(f"{log} cannot be read ({error.strerror})", remedy) from error


def history_file(path: Path) -> Path:
    """The file with the trials: of a state directory its history."""
    return path / FILE if path.is_dir() else path


def write_file(path: Path, text: str) -> None:
    """Replace the file. Raises KickwatchError."""
    try:
        write_whole(path, text.encode(), 0o644)
    except OSError as error:
        what = f"{path} cannot be written ({error.strerror})"
        raise KickwatchError(what, "give a file in a directory that you may write") from error


def _bug(found: dict[str, Any], path: Path) -> str:
    if not found["kernels"]:
        raise KickwatchError(f"{path} has no trials", "run `kickwatch trial`, or give another history")
    return bug_text(found, kernel_config(subject_of(found).kernel["kernel"]))


def _print_comparison(names: tuple[str, str], path: Path, config: Config, html: Path | None, *, as_json: bool) -> None:
    """Two histories where both names are files or directories, else two releases of the history."""
    if all(Path(name).exists() for name in names):
        sides = [collected(Path(name), config) for name in names]
    else:
        sides = [collected(path, config, kernel=name) for name in names]
    for side, name in zip(sides, names, strict=True):
        if side["first_unix_s"] is None:
            raise KickwatchError(f"no trial of {name} in {path}", "give two kernel releases of it, or two histories")
    found = comparison(sides[0], sides[1], names)
    if html is not None:
        from kickwatch.report.html.compare_page import compare_page  # noqa: PLC0415 -- only this way needs the plots

        write_file(html, compare_page(found))
        return
    click.echo(json.dumps(found, indent=1) if as_json else comparison_text(found))
