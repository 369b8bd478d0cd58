"""`kickwatch gate`: may this kernel go to the fleet?"""

import sys
from pathlib import Path

import click

from kickwatch.commands.common import config_options, examples

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.command(
    epilog=examples(
        "kickwatch gate --junit gate.xml",
        "kickwatch gate --error-rate 1e-6 --time-limit 600 --ktap -",
    )
)
@config_options
@click.option(
    "--error-rate",
    type=click.FloatRange(1e-12, 0.1),
    default=1e-4,
    show_default=True,
    metavar="P",
    help="Probability of a wrong verdict, on either side. It decides how many containers start: 23 for 1e-4.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(10),
    default=170.0,
    show_default=True,
    metavar="SECONDS",
    help="Then the verdict is given over the trials that have ended; without one it is unknown.",
)
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML; - is standard output.")
@click.option("--ktap", type=_FILE, metavar="FILE", help="Write KTAP, the kernel's format of test results.")
@click.option("--json", type=_FILE, metavar="FILE", help="Write one JSON object (schema 1).")
@click.option("--strict", is_flag=True, help="Waits for slab_mutex fail the gate, too; so does not to know them.")
def gate(  # noqa: PLR0917 -- click passes by keyword
    config_path: Path | None,
    sets: tuple[str, ...],
    error_rate: float,
    time_limit: float,
    junit: Path | None,
    ktap: Path | None,
    json: Path | None,
    strict: bool,
) -> None:
    """Let a kernel or image pass, or stop it: for pipelines that build them.

    Runs as many containers as the error rate needs, within the time limit, and prints a line for each check: whether
    the measurement may be believed, broadcasts by the creation path, broadcasts that come with containers from
    elsewhere, waits for slab_mutex. If the run fails (no engine, no root), the result is unknown, and each file has the
    cause.

    Exit status: 0 the kernel passes, 3 it broadcasts, 4 unknown. Only 0 lets it pass.
    """
    from kickwatch.commands import gating  # noqa: PLC0415 -- not for --help

    order = gating.GateOrder(config_path, sets, error_rate, time_limit, strict=strict)
    sys.exit(gating.run_and_report(order, gating.Files(junit, ktap, json)))
