"""`kickwatch trial`: one experiment now."""

import sys
from pathlib import Path

import click

from kickwatch.commands.common import BISECT_STATUS, complain, config_options, examples
from kickwatch.model import Verdict


@click.command(
    epilog=examples(
        "kickwatch trial --until-decided",
        "kickwatch trial --containers 50 --set workload.network=bridge --json",
    )
)
@config_options
@click.option(
    "--containers",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Containers to start. Default: workload.containers_per_trial.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1) instead of tables.")
@click.option("--all", "everything", is_flag=True, help="Print every line of the bill, the background as well.")
@click.option("--wide", is_flag=True, help="Print at least 160 columns: with calls, sweeps and call chains.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the records of the trials to FILE, as JSON lines for `kickwatch report` and `kickwatch replay`.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Also exit 3 if the node is quiet but containers wait for slab_mutex, 4 if such waits are not known.",
)
@click.option("--until-decided", is_flag=True, help="Run more containers until the verdict is quiet or broadcasting.")
@click.option("--bisect", is_flag=True, help="For `git bisect run`: exit 0 quiet, 1 broadcasting, 125 unknown.")
def trial(  # noqa: PLR0917 -- click passes by keyword
    config_path: Path | None,
    sets: tuple[str, ...],
    containers: int | None,
    as_json: bool,
    everything: bool,
    wide: bool,
    record: Path | None,
    strict: bool,
    until_decided: bool,
    bisect: bool,
) -> None:
    """Run one experiment now: print the verdict, and what each container cost the other CPUs.

    Needs root. With the defaults it usually takes less than a minute. Its containers are removed at the end. At a
    terminal it shows a progress bar. It is as wide as the terminal, or as COLUMNS says; NO_COLOR=1 switches colours
    off.

    Exit status: 0 quiet, 3 broadcasting, 4 unknown.
    """
    from kickwatch.commands import one_trial  # noqa: PLC0415 -- not for --help

    order = one_trial.Order(config_path, sets, containers, until_decided, record)
    shown = one_trial.Shown(as_json, everything, wide)
    try:
        trials, judgement = one_trial.run_and_report(order, shown)
    except Exception as error:  # git takes any other status for a bad kernel
        if not bisect:
            raise
        complain(str(error))
        sys.exit(BISECT_STATUS[Verdict.UNKNOWN])
    sys.exit(one_trial.exit_status(trials, judgement, strict=strict, bisect=bisect))
