"""What `kickwatch trial` does: run the experiment, log its alerts, print the answer. Loaded when it is called."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch.commands.common import BISECT_STATUS, EXIT_STATUS, read_config, run
from kickwatch.configuration.types import Config, LogConfig, LogFormat
from kickwatch.detect.figures import counted
from kickwatch.detect.single import Single
from kickwatch.detect.verdict import Finding, ReasonedVerdict, contention_known
from kickwatch.errors import OutputError
from kickwatch.experiment.one_shot import RunLimits, decide
from kickwatch.experiment.own_work import OwnWork
from kickwatch.journal.journal import configure_logging, logger
from kickwatch.model import Trial, Verdict
from kickwatch.outlets.elsewhere import other_broadcasts
from kickwatch.outlets.one_run import alerts_of
from kickwatch.process.signals import Shutdown, until_signalled
from kickwatch.report.isolation import own_work_text
from kickwatch.report.summary import summarise
from kickwatch.terminal.console import is_terminal
from kickwatch.terminal.trial_progress import AboveTheBar, trial_progress
from kickwatch.terminal.trial_screen import ScreenView, trial_screen


@dataclass(frozen=True)
class Order:
    """What to run. `record`: a file that the trials' records are appended to."""

    config_path: Path | None
    sets: tuple[str, ...]
    containers: int | None
    until_decided: bool
    record: Path | None = None


@dataclass(frozen=True)
class Shown:
    """What to print: JSON, or a screen with all lines of the bill, or with wide ones."""

    as_json: bool = False
    everything: bool = False
    wide: bool = False


def run_and_report(order: Order, shown: Shown) -> tuple[list[Trial], ReasonedVerdict]:
    """Run the experiment and print its answer. Alerts and records are written even if nothing can be printed.

    A person at a terminal gets the answer alone: it has all that an alert has.
    """
    own = OwnWork()
    config = read_config(order.config_path, order.sets)
    trials, single = _decided(config, order, own)
    judgement = ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)
    answered = config.log.format is LogFormat.AUTO and not shown.as_json and _reads_both()
    for alert in () if answered else alerts_of(trials, judgement):
        getattr(logger(), alert.level)(alert.event, **alert.fields)
    try:
        click.echo(rendered(trials, single, judgement, own, shown, record=str(order.record or "")), nl=False)
    finally:
        if order.record is not None:
            _record(order.record, trials)
    return trials, judgement


def _reads_both() -> bool:
    """Whether somebody sees standard output and the log on a terminal."""
    return is_terminal(sys.stdout) and is_terminal(sys.stderr)


def _decided(config: Config, order: Order, own: OwnWork) -> tuple[list[Trial], Single]:
    count = order.containers or config.workload.containers_per_trial
    ending = Shutdown()
    with trial_progress(sys.stderr, lambda above: log_to(config.log, above)) as step:
        work = decide(config, count, step, RunLimits(order.until_decided), ending=ending, own=own)
        return run(until_signalled(work, stopping=ending.begin))


def log_to(log: LogConfig, above: AboveTheBar | None) -> None:
    """Log above a bar, or again as before. At a terminal `auto` means text; above a bar nothing but this says so."""
    form = "console" if above is not None and log.format is LogFormat.AUTO else log.format
    configure_logging(form=form, level=log.level, stream=above)  # type: ignore[arg-type] # it has what the log uses


def _record(file: Path, trials: list[Trial]) -> None:
    try:
        with file.open("ab") as out:
            out.writelines(msgspec.json.encode(trial) + b"\n" for trial in trials)
    except OSError as error:
        raise OutputError(f"{file} cannot be written ({error.strerror})", "choose another file") from error


def rendered(
    trials: list[Trial], single: Single, judgement: ReasonedVerdict, own: OwnWork, shown: Shown, *, record: str = ""
) -> str:
    """The figures of the last trial, and the answer over all trials."""
    own_work = msgspec.to_builtins(own.reached) if own.isolated else None
    if shown.as_json:
        found = summarise(trials[-1], judgement)
        return json.dumps(found | {"own_work": own_work, "evidence": evidence(trials, single)}, indent=1) + "\n"
    return trial_screen(
        trials,
        judgement,
        single,
        sys.stdout,
        ScreenView(everything=shown.everything, wide=shown.wide),
        own_work=own_work_text(own.isolated, own_work) if own_work else "",
        recorded=record,
    )


def evidence(trials: Sequence[Trial], single: Single) -> dict[str, Any]:
    """Over all trials of a run, for JSON."""
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


def exit_status(trials: Sequence[Trial], judgement: ReasonedVerdict, *, strict: bool, bisect: bool) -> int:
    """The exit status. `strict`: contention counts as a fault, so waits must be known.

    `bisect`: as `git bisect run` expects it.
    """
    if bisect:
        return BISECT_STATUS[judgement.verdict]
    contended = Finding.SLAB_MUTEX_CONTENTION in judgement.findings
    if strict and judgement.verdict is Verdict.QUIET:
        seen = contention_known(trials)
        return EXIT_STATUS[Verdict.BROADCASTING if contended else Verdict.QUIET if seen else Verdict.UNKNOWN]
    return EXIT_STATUS[judgement.verdict]
