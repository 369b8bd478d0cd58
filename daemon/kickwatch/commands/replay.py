"""`kickwatch replay`: every verdict again, from the records."""

import gc
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from kickwatch.commands.common import EXIT_STATUS, config_options, read_config
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import TrialOutcome
from kickwatch.history.record_reader import RecordedTrial, open_records
from kickwatch.model import Verdict
from kickwatch.service.pace import pace_of


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay ends with. `evidence` is a digest of the state: equal on two machines, equal to the last bit.

    `otherwise`: trials of which the history has kept another outcome; `lost`: evidence that could not be restored.
    """

    schema: int = 1
    trials: int
    voids: int
    verdict: Verdict
    conditions: dict[str, tuple[str, ...]]
    otherwise: int
    lost: tuple[str, ...]
    evidence: str


class Replay:
    """Steps through rows; the pace of each row decides the thresholds, as it did when the row was recorded."""

    def __init__(self, pace: Pace) -> None:
        """`pace` is for rows that carry none."""
        self._pace = pace
        self._monitors: dict[Pace, Monitor] = {}
        self._monitor = self._monitor_for(pace)
        self._state = self._monitor.start()
        self._trials = self._otherwise = 0
        self._lost: dict[str, None] = {}

    def step(self, row: RecordedTrial) -> TrialOutcome:
        """The verdict of one row, again."""
        self._monitor = self._monitor_for(row.pace or self._pace)
        if row.state is not None:
            self._begin(row.state)
        self._state, outcome = self._monitor.step(self._state, row.trial)
        self._trials += 1
        if row.outcome and msgspec.json.encode(outcome) != row.outcome:
            self._otherwise += 1
        return outcome

    def result(self) -> Replayed:
        """What it came to."""
        state = self._state
        return Replayed(
            trials=self._trials,
            voids=state.voids,
            verdict=state.verdict,
            conditions={condition.value: streams for condition, streams in state.alerted.items()},
            otherwise=self._otherwise,
            lost=tuple(self._lost),
            evidence=hashlib.sha256(save(self._monitor, state)).hexdigest(),
        )

    def _begin(self, saved: bytes) -> None:
        self._state, lost = restore(self._monitor, saved) if saved else (self._monitor.start(), ())
        self._lost |= dict.fromkeys(lost)

    def _monitor_for(self, pace: Pace) -> Monitor:
        if pace not in self._monitors:
            self._monitors[pace] = Monitor(pace)
        return self._monitors[pace]


@click.command()
@config_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each trial, and one at the end.")
def replay(config_path: Path | None, sets: tuple[str, ...], file: Path, as_json: bool) -> None:
    """Judge every trial in FILE again: a history, best a copy of one, or trial records as JSON lines.

    Thresholds follow from the pace that the history has kept; for JSON lines from the configuration.
    Exit status: 0 quiet, 3 broadcasting, 4 unknown, after the last trial.
    """
    again = Replay(pace_of(read_config(config_path, sets)))
    out = sys.stdout.buffer
    told = None
    with open_records(file) as rows, _without_collector():
        for row in rows:
            outcome = again.step(row)
            if as_json:
                out.write(msgspec.json.encode(outcome) + b"\n")
            elif outcome.changes or outcome.anew or outcome.verdict is not told:
                out.write(_lines(outcome).encode())
            told = outcome.verdict
    result = again.result()
    out.write((msgspec.json.encode(result) if as_json else _summary(result).encode()) + b"\n")
    out.flush()
    sys.exit(EXIT_STATUS[result.verdict])


@contextmanager
def _without_collector() -> Iterator[None]:
    """Records hold no cycles: looking for some at every turn takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _lines(outcome: TrialOutcome) -> str:
    """A trial at which something changed."""
    why = ", ".join((*outcome.reasons, *outcome.findings))
    lines = [f"trial {outcome.trial}: {outcome.verdict.value}" + (f" ({why})" if why else "")]
    lines += [f"  evidence begins anew: {outcome.anew}"] if outcome.anew else []
    lines += [f"  {change.condition.value} {change.kind.value}: {change.text}" for change in outcome.changes]
    return "".join(f"{line}\n" for line in lines)


def _summary(result: Replayed) -> str:
    lines = [f"{result.trials} trials, {result.voids} of them void; at the end: {result.verdict.value}"]
    lines += [f"{condition}: {', '.join(streams)}" for condition, streams in result.conditions.items()]
    if result.otherwise:
        lines.append(f"{result.otherwise} trials were judged otherwise when they were recorded")
    lines += [f"evidence not restored: {what}" for what in result.lost]
    return "\n".join([*lines, f"evidence {result.evidence}"])
