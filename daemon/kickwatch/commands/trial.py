"""`kickwatch trial`: one experiment now."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch.commands.common import BISECT_STATUS, EXIT_STATUS, complain, config_options, read_config, run, say
from kickwatch.detect.figures import counted
from kickwatch.detect.single import Single
from kickwatch.detect.verdict import Finding, ReasonedVerdict
from kickwatch.experiment.one_shot import decide
from kickwatch.experiment.own_work import OwnWork
from kickwatch.journal.journal import logger
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.outlets.one_run import alerts_of
from kickwatch.process.signals import Shutdown, until_signalled
from kickwatch.report.isolation import own_work_text
from kickwatch.report.summary import summarise
from kickwatch.report.tables import trial_text


@click.command()
@config_options
@click.option(
    "--containers",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Containers to start. Default: workload.containers_per_trial.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema 1) instead of tables.")
@click.option("--strict", is_flag=True, help="Also exit 3 if the node is quiet but containers wait for slab_mutex.")
@click.option("--until-decided", is_flag=True, help="Run more containers until the verdict is quiet or broadcasting.")
@click.option("--bisect", is_flag=True, help="For `git bisect run`: exit 0 quiet, 1 broadcasting, 125 unknown.")
def trial(  # noqa: PLR0917 -- click passes by keyword
    config_path: Path | None,
    sets: tuple[str, ...],
    containers: int | None,
    as_json: bool,
    strict: bool,
    until_decided: bool,
    bisect: bool,
) -> None:
    """Run one experiment now: print what each container cost the other CPUs, and the verdict.

    Needs root. With the defaults it usually takes less than a minute. Its containers are removed at the end.

    Exit status: 0 quiet, 3 broadcasting, 4 unknown.
    """
    try:
        own = OwnWork()
        trials, single = _decided(config_path, sets, containers, until_decided=until_decided, own=own)
        judgement = ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)
        _report(trials, single, judgement, own, as_json=as_json)
    except Exception as error:  # git takes any other status for a bad kernel
        if not bisect:
            raise
        complain(str(error))
        sys.exit(BISECT_STATUS[Verdict.UNKNOWN])
    sys.exit(_status(judgement, strict=strict, bisect=bisect))


def _decided(
    config_path: Path | None, sets: tuple[str, ...], containers: int | None, *, until_decided: bool, own: OwnWork
) -> tuple[list[Trial], Single]:
    config = read_config(config_path, sets)
    count = containers or config.workload.containers_per_trial
    ending = Shutdown()
    work = decide(config, count, say, until_decided=until_decided, ending=ending, own=own)
    return run(until_signalled(work, stopping=ending.begin))


def _report(trials: list[Trial], single: Single, judgement: ReasonedVerdict, own: OwnWork, *, as_json: bool) -> None:
    """Print the verdict, and log its alerts even if the verdict cannot be printed."""
    try:
        click.echo(_rendered(trials, single, judgement, own, as_json=as_json))
    finally:
        for alert in alerts_of(trials, judgement):
            getattr(logger(), alert.level)(alert.event, **alert.fields)


def _rendered(trials: list[Trial], single: Single, judgement: ReasonedVerdict, own: OwnWork, *, as_json: bool) -> str:
    """The figures of the last trial, and the verdict over all trials."""
    own_work = msgspec.to_builtins(own.reached) if own.isolated else None
    if as_json:
        found = summarise(trials[-1], judgement)
        return json.dumps(found | {"own_work": own_work, "evidence": _evidence(trials, single)}, indent=1)
    rate = f"error rate at most {single.error_rate:g} per run"
    spared = f"\n{own_work_text(own.isolated, own_work)}" if own_work else ""
    return f"{trial_text(trials[-1], judgement, trials)}\n{single.text}; {rate}{spared}"


def _evidence(trials: list[Trial], single: Single) -> dict[str, Any]:
    return {
        "trials": [trial.trial_id for trial in trials],
        "verdict": single.verdict.value,
        "containers": sum(len(counted(trial)) for trial in trials),
        "error_rate": single.error_rate,
        "broadcasting": single.evidence_broadcasting,
        "quiet": single.evidence_quiet,
        "needed": single.evidence_needed,
        "more_containers": single.more_containers,
        "beside": msgspec.to_builtins(other_broadcasts(trials)),
    }


def _status(judgement: ReasonedVerdict, *, strict: bool, bisect: bool) -> int:
    if bisect:
        return BISECT_STATUS[judgement.verdict]
    contended = Finding.SLAB_MUTEX_CONTENTION in judgement.findings
    if strict and contended and judgement.verdict is Verdict.QUIET:
        return EXIT_STATUS[Verdict.BROADCASTING]
    return EXIT_STATUS[judgement.verdict]
