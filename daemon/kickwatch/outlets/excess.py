"""What comes with containers: a figure of each cell in the churn windows, above the rate of the quiet windows. Pure."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

from kickwatch.detect.figures import above_quiet, churn_by_quiet, counted
from kickwatch.model import Cell, Trial

Figure = Callable[[Cell], int]
Key = TypeVar("Key", bound=Hashable)


class Excess(NamedTuple):
    """A cell, as the churn window with most of its requests has it, and its figure above quiet over all trials."""

    cell: Cell
    above_quiet: float


def above_quiet_by(trial: Trial, key: Callable[[Cell], Key], figure: Figure) -> dict[Key, float]:
    """`figure` above quiet by `key`, which says how much of a cell makes one sum. Noise can make it negative.

    Also the keys that only the quiet window has: a sum over trials needs them.
    """
    above: dict[Key, float] = {}
    for cells, weight in ((trial.churn.cells, 1.0), (trial.quiet.cells, -churn_by_quiet(trial))):
        for cell in cells:
            of = key(cell)
            above[of] = above.get(of, 0.0) + weight * figure(cell)
    return above


def excesses(trials: Sequence[Trial], figure: Figure) -> list[Excess]:
    """The cells of the churn windows by `figure` above quiet, largest first."""
    largest: dict[tuple[object, ...], Cell] = {}
    above: dict[tuple[object, ...], float] = {}
    for trial in trials:
        for cell in trial.churn.cells:
            known = largest.get(cell.identity)
            if known is None or cell.requests > known.requests:
                largest[cell.identity] = cell
        for identity, amount in above_quiet_by(trial, lambda cell: cell.identity, figure).items():
            above[identity] = above.get(identity, 0.0) + amount
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


def isolated_ipis_above_quiet(trial: Trial) -> float | None:
    """IPIs of every kind to isolated CPUs above the quiet window's rate; None unless both windows counted them."""
    churn, quiet = trial.churn.isolated_ipis, trial.quiet.isolated_ipis
    return None if churn is None or quiet is None else above_quiet(trial, churn, quiet)


def _padded(counts: Sequence[int], width: int) -> list[int]:
    """A CPU that came online later has no count in the earlier window: it got nothing there."""
    return [*counts, *(0,) * (width - len(counts))]


def containers_of(trials: Sequence[Trial]) -> int:
    """The containers that count, of all trials."""
    return sum(len(counted(trial)) for trial in trials)
