"""`kickwatch simulate`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from kickwatch.errors import OutputError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # tasks done, and all

EXAMPLES = """\b
Examples:
  kickwatch simulate --quick
  kickwatch simulate --seed 7 --plot delays.svg
  kickwatch simulate --fleet
"""


@click.command(epilog=EXAMPLES)
@click.option("--quick", is_flag=True, help="A smaller study, within 50 seconds instead of some minutes.")
@click.option(
    "--fleet",
    is_flag=True,
    help="Simulate a fleet instead: load of Prometheus, false pages, time to find a bad kernel release.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--seed", default=1, metavar="N", show_default=True, help="Random seed: equal seeds give equal figures.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", show_default="the CPUs available", help="Processes to use."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also plot the figures to this SVG file.",
)
def simulate(  # noqa: PLR0917 -- click passes by keyword
    quick: bool, fleet: bool, as_json: bool, seed: int, jobs: int | None, plot: Path | None
) -> None:
    """Simulate the detectors: false alarms on healthy but difficult nodes, and detection delays under faults.

    Needs no containers and no privileges. docs/detection.md explains the tables, docs/explanation/scale.md those of a
    fleet.
    """
    if fleet:
        if plot:
            raise click.UsageError("--plot has no picture of a fleet: leave it out")
        _fleet(quick, as_json, seed)
        return
    # Not for --help.
    from kickwatch.detect.simulate.plot import to_svg  # noqa: PLC0415
    from kickwatch.detect.simulate.report import to_json, to_text  # noqa: PLC0415
    from kickwatch.detect.simulate.study import run_simulation  # noqa: PLC0415

    result = _with_bar(lambda progress: run_simulation(quick, seed, progress, jobs))
    click.echo(to_json(result) if as_json else to_text(result))
    if plot:
        _draw(to_svg(result), plot)


def _fleet(quick: bool, as_json: bool, seed: int) -> None:
    from kickwatch.detect.simulate.fleet_report import fleet_json, fleet_text, run_fleet  # noqa: PLC0415 -- as above

    figures = _with_bar(lambda progress: run_fleet(quick, seed, progress))
    click.echo(fleet_json(figures) if as_json else fleet_text(figures))


def _with_bar(work: Callable[[Progress | None], Result]) -> Result:
    """Do the work, with a progress bar if standard error is a terminal."""
    if not sys.stderr.isatty():
        return work(None)
    with click.progressbar(length=0, label="simulating", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        return work(progress)


def _draw(picture: str, path: Path) -> None:
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        remedy = "name a file that can be written, and give the same --seed"
        raise OutputError(f"{path} cannot be written ({error.strerror})", remedy) from error
