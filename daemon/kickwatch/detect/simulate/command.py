"""`kickwatch simulate`."""

import sys
from pathlib import Path

import click

from kickwatch.errors import OutputError

EXAMPLES = """\b
Examples:
  kickwatch simulate --quick
  kickwatch simulate --seed 7 --plot delays.svg
"""


@click.command(epilog=EXAMPLES)
@click.option("--quick", is_flag=True, help="A smaller study, within 50 seconds instead of some minutes.")
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
def simulate(quick: bool, as_json: bool, seed: int, jobs: int | None, plot: Path | None) -> None:
    """Simulate the detectors: false alarms on healthy but difficult nodes, and detection delays under faults.

    Needs no containers and no privileges. docs/detection.md explains the tables.
    """
    # Not for --help.
    from kickwatch.detect.simulate.plot import to_svg  # noqa: PLC0415
    from kickwatch.detect.simulate.report import to_json, to_text  # noqa: PLC0415
    from kickwatch.detect.simulate.study import run_simulation  # noqa: PLC0415

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
