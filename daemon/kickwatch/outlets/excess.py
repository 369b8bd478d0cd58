"""What comes with containers: a figure of each cell in the churn windows, above the rate of the quiet windows. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kickwatch.detect.figures import above_quiet, churn_by_quiet, counted
from kickwatch.model import Cell, Trial

Figure = Callable[[Cell], int]


class Excess(NamedTuple):
    """A cell, as the churn window with most of its requests has it, and its figure above quiet over all trials."""

    cell: Cell
    above_quiet: float


def excesses(trials: Sequence[Trial], figure: Figure) -> list[Excess]:
    """The cells of the churn windows by `figure` above quiet, largest first. Noise can make it negative."""
    largest: dict[tuple[object, ...], Cell] = {}
    above: dict[tuple[object, ...], float] = {}
    for trial in trials:
        ratio = churn_by_quiet(trial)
        for cell in trial.churn.cells:
            known = largest.get(cell.identity)
            if known is None or cell.requests > known.requests:
                largest[cell.identity] = cell
            above[cell.identity] = above.get(cell.identity, 0.0) + figure(cell)
        for cell in trial.quiet.cells:
            above[cell.identity] = above.get(cell.identity, 0.0) - figure(cell) * ratio
    found = [Excess(cell, above[identity]) for identity, cell in largest.items()]
    return sorted(found, key=lambda one: -one.above_quiet)


def per_cpu_above_quiet(trial: Trial) -> list[float] | None:
    """Requests to each CPU in the churn window above the quiet window's rate; None unless both windows counted them."""
    churn, quiet = trial.churn.per_cpu, trial.quiet.per_cpu
    if churn is None or quiet is None:
        return None
    width = max(len(churn), len(quiet))
    pairs = zip(_padded(churn, width), _padded(quiet, width), strict=True)
    return [above_quiet(trial, sent, background) for sent, background in pairs]


def _padded(counts: Sequence[int], width: int) -> list[int]:
    """A CPU that came online later has no count in the earlier window: it got nothing there."""
    return [*counts, *(0,) * (width - len(counts))]


def containers_of(trials: Sequence[Trial]) -> int:
    """The containers that count, of all trials."""
    return sum(len(counted(trial)) for trial in trials)
