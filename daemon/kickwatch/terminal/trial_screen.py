"""The screen of `kickwatch trial`: the answer, the bill, the waits, the figures, and last the next step.

The words are those of a pipe: only the colours depend on the terminal, and where lines end on its width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from kickwatch.detect.single import Single
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.model import IpiRung, Trial, Verdict
from kickwatch.report.answer import RunAnswer, answer
from kickwatch.report.facts import figures_of, setting_of, waits_of
from kickwatch.report.run_words import NextStep
from kickwatch.report.summary import summarise
from kickwatch.terminal.bill_table import bill_table
from kickwatch.terminal.console import columns_of, console
from kickwatch.terminal.layout import as_text, command, figures, labelled

WIDE = 160  # columns that --wide takes at least
_VERDICT_STYLES = {Verdict.QUIET: "bold green", Verdict.BROADCASTING: "bold red", Verdict.UNKNOWN: "bold yellow"}
_WAIT_HEAD = ("waits", "total ms", "longest ms", "waiter", "held by")
_HEADING = "bold"


@dataclass(frozen=True)
class ScreenView:
    """How much is shown. `everything`: the background cell by cell; `wide`: at least 160 columns."""

    everything: bool = False
    wide: bool = False
    columns: int | None = None  # None: those of the stream


def trial_screen(
    trials: Sequence[Trial],
    judgement: ReasonedVerdict,
    single: Single,
    stream: TextIO,
    view: ScreenView = ScreenView(),
    *,
    own_work: str = "",
    recorded: str = "",
) -> str:
    """The text, with colours if `stream` shows them. The figures are of the last trial, the answer is over all."""
    columns = view.columns or columns_of(stream)
    out = console(stream, columns=max(columns, WIDE) if view.wide else columns)
    found = answer(trials, judgement, single, recorded)
    parts: list[RenderableType] = [
        *_answer(found, trials[-1]),
        *_bill(trials, out, everything=view.everything),
        *_waits(trials[-1]),
        *_figures(trials[-1], judgement, own_work),
        *_steps(found.steps, out.width),
    ]
    return as_text(out, parts)


def _answer(found: RunAnswer, trial: Trial) -> list[RenderableType]:
    word, _, rest = found.headline.partition(":")
    headline = Text.assemble(("verdict: ", _HEADING), (word, _VERDICT_STYLES[found.verdict]), f":{rest}")
    points = list(found.points)
    if trial.void:
        points.insert(0, ("void", f"this trial proves nothing ({trial.void})"))
    points += [("note", note) for note in trial.notes]
    return [headline, labelled(points), ""]


def _bill(trials: Sequence[Trial], out: Console, *, everything: bool) -> list[RenderableType]:
    trial = trials[-1]
    if trial.observers.ipis is IpiRung.COUNTERS:
        return ["what the other CPUs were made to run is not known: no probe is armed", ""]
    if not trial.churn.cells:
        return []
    last = f", last of {len(trials)} trials" if len(trials) > 1 else ""
    heading = f"IPIs to other CPUs, per container{last}; requests above the idle rate"
    return [Text(heading, style=_HEADING), *bill_table(trial, out.width, everything=everything), ""]


def _waits(trial: Trial) -> list[RenderableType]:
    known, rows = waits_of(trial)
    if not rows:
        return [labelled([("slab_mutex", known)], indent=0), ""]
    return [
        Text(f"slab_mutex: {known}", style=_HEADING),
        figures(_WAIT_HEAD, [(row, "") for row in rows], numbers=(0, 1, 2)),
        "",
    ]


def _figures(trial: Trial, judgement: ReasonedVerdict, own_work: str) -> list[RenderableType]:
    summary = summarise(trial, judgement)
    rows = [*figures_of(trial, summary), *([("own work", own_work)] if own_work else []), *setting_of(trial, summary)]
    return [labelled(rows, indent=0)]


def _steps(steps: Sequence[NextStep], columns: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for step in steps:
        parts += ["", Text.assemble(("next: ", _HEADING), f"{step.what}{':' if step.command else ''}")]
        parts += [command(step.command, columns)] if step.command else []
    return parts
