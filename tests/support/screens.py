"""The screen of `kickwatch trial` over trials that need no node."""

import io
from collections.abc import Sequence
from typing import Any

from kickwatch.detect.single import one_shot
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.model import Trial
from kickwatch.terminal.trial_screen import ScreenView, trial_screen


def judged(trials: Sequence[Trial]) -> ReasonedVerdict:
    """The verdict of the run, as `kickwatch trial` gives it."""
    single = one_shot(trials)
    return ReasonedVerdict(verdict=single.verdict, reasons=single.reasons, findings=single.findings)


def screen(*trials: Trial, columns: int = 200, judgement: ReasonedVerdict | None = None, **given: Any) -> str:
    """The screen as it is printed into a pipe. `given`: of the view, or for `trial_screen`."""
    view = {name: given.pop(name) for name in ("everything", "wide") if name in given}
    found = judgement or judged(trials)
    return trial_screen(trials, found, one_shot(trials), io.StringIO(), ScreenView(columns=columns, **view), **given)


def prose(*trials: Trial, **given: Any) -> str:
    """The same on one line, with single spaces."""
    return " ".join(screen(*trials, **given).split())
