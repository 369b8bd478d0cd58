"""What `kickwatch gate` does: run trials within its limits, log alerts, write the checks. Loaded when it is called."""

import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch import __version__
from kickwatch.commands.common import EXIT_STATUS, read_config, run
from kickwatch.commands.one_trial import evidence, exit_status, log_to
from kickwatch.configuration.types import Config
from kickwatch.detect.figures import counted
from kickwatch.detect.single import Single, containers_needed
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.errors import ConfigError, InterruptedRunError, KickwatchError, OutputError
from kickwatch.experiment.one_shot import RunLimits, decide
from kickwatch.journal.journal import logger
from kickwatch.model import SCHEMA_VERSION, Trial, Verdict
from kickwatch.outlets.one_run import alerts_of
from kickwatch.process.signals import Shutdown, until_signalled
from kickwatch.report.check_formats import junit, ktap, plain
from kickwatch.report.checks import Check, checks_of, not_run
from kickwatch.report.summary import summarise
from kickwatch.terminal.console import columns_of, is_terminal
from kickwatch.terminal.trial_progress import trial_progress

_STDOUT = Path("-")


@dataclass(frozen=True)
class GateOrder:
    """What to run, and what fails the gate."""

    config_path: Path | None
    sets: tuple[str, ...]
    error_rate: float
    time_limit_s: float
    strict: bool = False
    begun_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Files:
    """Where each format goes; None: nowhere."""

    junit: Path | None = None
    ktap: Path | None = None
    json: Path | None = None

    @property
    def named(self) -> list[Path]:
        """Those that are wanted."""
        return [path for path in (self.junit, self.ktap, self.json) if path is not None]

    @property
    def regular(self) -> "Files":
        """Those that can be written more than once: no pipe, device or standard output."""
        return Files(_if_regular(self.junit), _if_regular(self.ktap), _if_regular(self.json))

    def check(self) -> None:
        """Raise ConfigError before anything runs if they could not be written."""
        if len({path.absolute() for path in self.named}) < len(self.named):
            raise ConfigError("two formats are to go to one place", "give each a file of its own")
        for path in self.named:
            if path != _STDOUT and not path.absolute().parent.is_dir():
                raise ConfigError(f"{path.absolute().parent} is not a directory", "make it, or choose another")


def _if_regular(path: Path | None) -> Path | None:
    return path if path is not None and path != _STDOUT and (path.is_file() or not path.exists()) else None


@dataclass(frozen=True)
class Gated:
    """The result. Without trials `failure` says why."""

    verdict: Verdict
    status: int
    checks: tuple[Check, ...]
    trials: tuple[Trial, ...] = ()
    judgement: ReasonedVerdict | None = None
    single: Single | None = None
    failure: str = ""


def run_and_report(order: GateOrder, files: Files) -> int:
    """Run, write the files, print the checks; the exit status.

    Each file is unknown from the start: an interrupted run must not leave the result of another kernel there.
    """
    files.check()
    _write(_without_result("the run did not end", EXIT_STATUS[Verdict.UNKNOWN]), order, files.regular)
    try:
        gated = _gate(read_config(order.config_path, order.sets), order)
    except KickwatchError as error:
        _write(_without_result(str(error), error.exit_status), order, files.regular)
        raise
    _write(gated, order, files)
    if _STDOUT not in files.named:
        took_s = time.monotonic() - order.begun_s
        columns = columns_of(sys.stdout) if is_terminal(sys.stdout) else None
        click.echo(plain(gated.checks, _last_line(gated, order, took_s), columns), nl=False)
    return gated.status


def _without_result(why: str, status: int) -> Gated:
    return Gated(Verdict.UNKNOWN, status, not_run(why), failure=why)


def _gate(config: Config, order: GateOrder) -> Gated:
    try:
        trials, single = _decided(config, order)
    except (ConfigError, InterruptedRunError):
        raise
    except (KickwatchError, OSError) as error:
        return _without_result(str(error), EXIT_STATUS[Verdict.UNKNOWN])
    judgement = ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)
    for alert in alerts_of(trials, judgement):
        getattr(logger(), alert.level)(alert.event, **alert.fields)
    checks = checks_of(trials, judgement, single, strict=order.strict)
    status = exit_status(trials, judgement, strict=order.strict, bisect=False)
    return Gated(judgement.verdict, status, checks, tuple(trials), judgement, single)


def _decided(config: Config, order: GateOrder) -> tuple[list[Trial], Single]:
    limits = RunLimits(
        until_decided=True, error_rate=order.error_rate, time_limit_s=order.time_limit_s, begun_s=order.begun_s
    )
    ending = Shutdown()
    with trial_progress(sys.stderr, lambda above: log_to(config.log, above)) as step:
        work = decide(config, containers_needed(order.error_rate), step, limits, ending=ending)
        return run(until_signalled(work, stopping=ending.begin))


def _last_line(gated: Gated, order: GateOrder, took_s: float) -> str:
    count = sum(len(counted(trial)) for trial in gated.trials)
    ran = f"{len(gated.trials)} trial{'' if len(gated.trials) == 1 else 's'}, {count} containers"
    rate = f"wrong in at most 1 run in {round(1 / order.error_rate):,}"
    reasons = f" ({', '.join(gated.judgement.reasons)})" if gated.judgement and gated.judgement.reasons else ""
    time_used = f"{took_s:.0f} s of at most {order.time_limit_s:g}"
    said = "" if gated.verdict is Verdict.UNKNOWN else f", {rate}"
    if gated.status != EXIT_STATUS[gated.verdict]:  # --strict asks for more than the verdict
        said += f"; slab_mutex: {gated.checks[-1].outcome}"
    return f"verdict: {gated.verdict.value}{reasons}, {ran}, {time_used}{said}"


def _properties(gated: Gated, order: GateOrder) -> dict[str, str]:
    node = gated.trials[-1].node if gated.trials else None
    return {
        "verdict": gated.verdict.value,
        "kernel": node.kernel if node else platform.release(),
        "engine": node.engine if node else "not known",
        "error_rate": f"{order.error_rate:g}",
        "kickwatch": __version__,
    }


def _as_json(gated: Gated, order: GateOrder, took_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "verdict": gated.verdict.value,
        "reasons": list(gated.judgement.reasons) if gated.judgement else [],
        "exit_status": gated.status,
        "failure": gated.failure or None,
        "checks": [msgspec.to_builtins(check) for check in gated.checks],
        "error_rate": order.error_rate,
        "time_limit_s": order.time_limit_s,
        "took_s": round(took_s, 1),
        "trial": None,
        "evidence": None,
    }
    if gated.judgement is not None and gated.single is not None:
        found["trial"] = summarise(gated.trials[-1], gated.judgement)
        found["evidence"] = evidence(gated.trials, gated.single)
    return found


def _write(gated: Gated, order: GateOrder, files: Files) -> None:
    """Write every format; one that cannot be written does not keep the others back."""
    took_s = time.monotonic() - order.begun_s
    texts = {
        files.junit: lambda: junit(gated.checks, _properties(gated, order), took_s),
        files.ktap: lambda: ktap(gated.checks),
        files.json: lambda: json.dumps(_as_json(gated, order, took_s), indent=1) + "\n",
    }
    unwritten: list[OutputError] = []
    for path in files.named:
        try:
            _write_one(path, texts[path]())
        except OutputError as error:
            unwritten.append(error)
    if unwritten:
        raise unwritten[0]


def _write_one(path: Path, text: str) -> None:
    if path == _STDOUT:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})", "choose another file") from error
