"""`kickwatch trial`: one experiment now."""

import json
import sys
from pathlib import Path

import click

from kickwatch.alert.condition import Conditions
from kickwatch.alert.journal import logger
from kickwatch.commands.common import BISECT_STATUS, EXIT_STATUS, config_options, read_config, run, say
from kickwatch.config import Config
from kickwatch.detect.verdict import Finding, Judgement
from kickwatch.model import Trial, Verdict
from kickwatch.report.summary import summarise
from kickwatch.report.tables import trial_text
from kickwatch.service import one_trial, until_signalled


@click.command()
@config_options
@click.option("--containers", type=click.IntRange(1, 10_000), help="How many containers. Default: the configuration's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1) instead of tables.")
@click.option("--strict", is_flag=True, help="Exit 3 also when containers contend for slab_mutex on a quiet node.")
@click.option("--bisect", is_flag=True, help="Exit 0 quiet, 1 broadcasting, 125 cannot tell: for `git bisect run`.")
def trial(  # noqa: PLR0917 -- click passes by keyword
    config_path: Path | None, sets: tuple[str, ...], containers: int | None, as_json: bool, strict: bool, bisect: bool
) -> None:
    """Run one experiment now: print the bill and the verdict.

    Exit status: 0 quiet, 3 broadcasting, 4 unknown.
    """
    try:
        config = read_config(config_path, sets)
        outcome = run(_trial(config, containers or config.workload.containers_per_trial))
    except Exception as error:  # under --bisect any failure is "cannot tell": git takes other statuses for a bad kernel
        if not bisect:
            raise
        click.echo(f"kickwatch: {error}", err=True)
        sys.exit(BISECT_STATUS[Verdict.UNKNOWN])
    click.echo(_rendered(*outcome, as_json=as_json))
    _alert(*outcome)
    sys.exit(_status(outcome[1], strict=strict, bisect=bisect))


async def _trial(config: Config, containers: int) -> tuple[Trial, Judgement]:
    return await until_signalled(one_trial(config, containers, say))


def _rendered(trial: Trial, judgement: Judgement, *, as_json: bool) -> str:
    return json.dumps(summarise(trial, judgement), indent=1) if as_json else trial_text(trial, judgement)


def _alert(trial: Trial, judgement: Judgement) -> None:
    for alert in Conditions().update([trial], judgement):
        getattr(logger(), alert.level)(alert.event, **alert.fields)


def _status(judgement: Judgement, *, strict: bool, bisect: bool) -> int:
    if bisect:
        return BISECT_STATUS[judgement.verdict]
    contended = Finding.SLAB_MUTEX_CONTENTION in judgement.findings
    if strict and contended and judgement.verdict is Verdict.QUIET:
        return EXIT_STATUS[Verdict.BROADCASTING]
    return EXIT_STATUS[judgement.verdict]
