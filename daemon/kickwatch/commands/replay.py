"""`kickwatch replay`: recompute every verdict from stored records."""

import gc
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from kickwatch.commands.common import EXIT_STATUS, config_options, examples, read_config
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.history.record_reader import RecordedTrial, open_records
from kickwatch.model import Verdict
from kickwatch.service.pace import pace_of


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay. `evidence` is a digest of the final state: if equal, it is equal to the last bit.

    `otherwise`: trials whose recomputed outcome differs from the stored one; `lost`: evidence that was not restored.
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
    """Replays trials one by one. The recorded pace of each sets the thresholds, as it did in the daemon."""

    def __init__(self, pace: Pace) -> None:
        """`pace` is for records without one."""
        self._pace = pace
        self._monitors: dict[Pace, Monitor] = {}
        self._monitor = self._monitor_for(pace)
        self._state = self._monitor.start()
        self._trials = self._otherwise = 0
        self._lost: dict[str, None] = {}

    def step(self, row: RecordedTrial) -> TrialOutcome:
        """The outcome of one trial, recomputed."""
        self._monitor = self._monitor_for(row.pace or self._pace)
        if row.state is not None:
            self._begin(row.state)
        self._state, outcome = self._monitor.step(self._state, row.trial)
        self._trials += 1
        if row.outcome and not _is_same(msgspec.json.encode(outcome), row.outcome):
            self._otherwise += 1
        return outcome

    def result(self) -> ReplayResult:
        """The result so far."""
        state = self._state
        return ReplayResult(
            trials=self._trials,
            voids=state.voids,
            verdict=state.verdict,
            conditions={condition.value: streams for condition, streams in state.alerted.items()},
            otherwise=self._otherwise,
            lost=tuple(self._lost),
            evidence=hashlib.sha256(save(self._monitor, state)).hexdigest(),
        )

    def figures(self) -> dict[str, StreamFigures]:
        """The evidence of every stream so far; empty before the first trial."""
        return self._monitor.figures(self._state)

    def _begin(self, saved: bytes) -> None:
        self._state, lost = restore(self._monitor, saved) if saved else (self._monitor.start(), ())
        self._lost |= dict.fromkeys(lost)

    def _monitor_for(self, pace: Pace) -> Monitor:
        if pace not in self._monitors:
            self._monitors[pace] = Monitor(pace)
        return self._monitors[pace]


def _is_same(outcome: bytes, stored: bytes) -> bool:
    """Whether two outcomes in JSON differ in their sentences alone, which another release may word differently."""
    if outcome == stored:
        return True
    try:
        return _without_sentences(outcome) == _without_sentences(stored)
    except msgspec.DecodeError:
        return False


def _without_sentences(outcome: bytes) -> dict[str, Any]:
    known = msgspec.json.decode(outcome, type=dict[str, Any])
    known["changes"] = [{**change, "text": ""} for change in known.get("changes", ())]
    return known


@click.command(epilog=examples("kickwatch replay /tmp/history.db", "kickwatch replay --json trials.jsonl | tail -1"))
@config_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per trial, and one at the end.")
def replay(config_path: Path | None, sets: tuple[str, ...], file: Path, as_json: bool) -> None:
    """Recompute the verdict of every trial in FILE: a history (use a copy) or trial records as JSON lines.

    A history stores the pace that the thresholds follow from; for JSON lines the configuration gives it.

    Exit status, after the last trial: 0 quiet, 3 broadcasting, 4 unknown.
    """
    again = Replay(pace_of(read_config(config_path, sets)))
    out = sys.stdout.buffer
    shown = None
    with open_records(file) as rows, without_collector():
        for row in rows:
            outcome = again.step(row)
            if as_json:
                out.write(msgspec.json.encode(outcome) + b"\n")
            elif outcome.changes or outcome.restart_reason or outcome.verdict is not shown:
                out.write(_lines(outcome).encode())
            shown = outcome.verdict
    result = again.result()
    out.write((msgspec.json.encode(result) if as_json else _summary(result).encode()) + b"\n")
    out.flush()
    sys.exit(EXIT_STATUS[result.verdict])


@contextmanager
def without_collector() -> Iterator[None]:
    """No garbage collection: records hold no reference cycles, and the search for them takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _lines(outcome: TrialOutcome) -> str:
    """The lines of a trial that changed something."""
    why = ", ".join((*outcome.reasons, *outcome.findings))
    lines = [f"trial {outcome.trial}: {outcome.verdict.value}" + (f" ({why})" if why else "")]
    lines += [f"  evidence starts again: {outcome.restart_reason}"] if outcome.restart_reason else []
    lines += [f"  {change.alarm.value} {change.kind.value}: {change.text}" for change in outcome.changes]
    return "".join(f"{line}\n" for line in lines)


def _summary(result: ReplayResult) -> str:
    lines = [f"{result.trials} trials, {result.voids} of them void; final verdict: {result.verdict.value}"]
    lines += [f"{condition}: {', '.join(streams)}" for condition, streams in result.conditions.items()]
    if result.otherwise:
        lines.append(f"for {result.otherwise} trials the stored outcome differs from the recomputed one")
    lines += [f"evidence not restored: {what}" for what in result.lost]
    return "\n".join([*lines, f"evidence {result.evidence}"])
