"""`kickwatch simulate`."""

import sys
from pathlib import Path

import click

from kickwatch.detect.simulate.plot import to_svg
from kickwatch.detect.simulate.report import to_json, to_text
from kickwatch.detect.simulate.study import run_simulation
from kickwatch.errors import OutputError


@click.command()
@click.option("--quick", is_flag=True, help="Answer within 50 seconds; without it the study takes some minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random numbers: equal seeds, equal figures.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes to use.  [default: the CPUs we may run on]")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the figures into this SVG file."
)
def simulate(quick: bool, as_json: bool, seed: int, jobs: int | None, plot: Path | None) -> None:
    """Measure the detectors: false alarms under nasty nulls, delays under faults."""
    if sys.stderr.isatty():
        with click.progressbar(length=0, label="simulating", file=sys.stderr) as bar:

            def progress(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            result = run_simulation(quick, seed, progress, jobs)
    else:
        result = run_simulation(quick, seed, None, jobs)
    click.echo(to_json(result) if as_json else to_text(result))
    if plot:
        _draw(to_svg(result), plot)


def _draw(picture: str, path: Path) -> None:
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        remedy = "name a file that can be written, and give the same --seed"
        raise OutputError(f"{path} cannot be written ({error.strerror})", remedy) from error
