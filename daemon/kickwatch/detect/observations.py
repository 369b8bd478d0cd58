"""From a trial to the observations of every stream, in the order in which they are made. Pure."""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from kickwatch.detect.classes import (
    BpfCost,
    Broadcasts,
    bpf_cost,
    elsewhere_above_quiet,
    elsewhere_by,
    flips_allowed,
    windows_of,
)
from kickwatch.detect.figures import churn_by_quiet
from kickwatch.detect.lives import Churned, churned_of, lives_of
from kickwatch.detect.passive import observations_of_looks
from kickwatch.detect.quantities import Observations, TrialFigures
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.model import Cell, IpiRung, Origin, Path, Trial


class TrialObservations(msgspec.Struct, frozen=True):
    """What one trial gives to the streams. A stream without an observation is in none of the dictionaries.

    What the stream `bpf` observes is here in broadcasts per container, until the monitor divides it by its allowance.
    """

    containers: int  # that count
    amounts: dict[StreamName, Observations]
    windows: dict[StreamName, tuple[float, float]]  # of streams that compare them: churn and quiet window
    cell_costs: dict[str, float]  # by cell: requests per container and other CPU, above the quiet window's
    longest_wait_ns: int = 0
    churned: Churned | None = None  # for the test of `quiet`; None where no probe attributed
    bpf: BpfCost | None = None
    elsewhere_above_quiet: float = 0.0  # broadcasts
    differences: dict[StreamName, Observations] = {}  # of streams of pairs, one for each container
    mostly: dict[StreamName, str] = {}  # the function with the largest excess, of streams of pairs with differences

    @property
    def zeros(self) -> tuple[tuple[StreamName, int], ...]:
        """How many zeros each stream observed, if none observed anything else and no windows differ; else empty."""
        if any(map(any, self.amounts.values())) or any(churn != quiet for churn, quiet in self.windows.values()):
            return ()
        if any(map(any, self.differences.values())):
            return ()
        return tuple((name, len(observed)) for name, observed in (*self.amounts.items(), *self.differences.items()))


def observations_of(trial: Trial) -> TrialObservations:
    """The observations of one trial, void or not: the monitor decides whether they may be used."""
    if trial.looks:
        return TrialObservations(0, observations_of_looks(trial.looks), {}, {})
    seen = figures_of(trial)
    amounts: dict[StreamName, Observations] = {}
    windows: dict[StreamName, tuple[float, float]] = {}
    differences: dict[StreamName, Observations] = {}
    for name, stream in STREAMS.items():
        if observed := stream.observes(seen):
            if stream.paired:
                differences[name] = observed
            elif stream.coin:
                churn, quiet = observed
                windows[name] = (churn, quiet)
            else:
                amounts[name] = observed
    lives, probed = seen.lives, seen.probed
    return TrialObservations(
        containers=lives.count,
        amounts=amounts,
        windows=windows,
        cell_costs=_cell_costs(trial, lives.count) if probed else {},
        longest_wait_ns=max([wait.max_wait_ns for wait in trial.churn.waits], default=0),
        churned=churned_of(lives) if probed and not lives.in_failed else None,
        bpf=seen.bpf,
        elsewhere_above_quiet=elsewhere_above_quiet(trial, seen.churn, seen.quiet) if probed else 0.0,
        differences=differences,
        mostly={name: _largest_excess(trial, name) for name, observed in differences.items() if any(observed)},
    )


def figures_of(trial: Trial) -> TrialFigures:
    """A trial's broadcasts by class."""
    churn, quiet = windows_of(trial)
    lives = lives_of(trial, churn.created)
    probed = trial.observers.ipis is not IpiRung.COUNTERS and lives.count > 0
    all_count = probed and lives.count == len(trial.containers)
    return TrialFigures(
        trial=trial,
        lives=lives,
        churn=churn,
        quiet=quiet if probed else Broadcasts(),
        probed=probed,
        bpf=bpf_cost(trial.node, lives.count, churn) if all_count else None,
    )


_EXCESS: dict[StreamName, Callable[[Cell, int], int]] = {  # from a cell and the allowed flips of the freezer's key
    StreamName.ELSEWHERE_PAIRS: elsewhere_by,
    StreamName.ISOLATION: lambda cell, _: cell.isolated or 0,
}


def _largest_excess(trial: Trial, name: StreamName) -> str:
    """The function of which churn had most above quiet, as the stream counts; empty if there is none."""
    figure = _EXCESS.get(name)
    if figure is None:
        return ""
    excess: dict[str, int] = {}
    allowed = flips_allowed(trial.node, len(trial.containers))
    for cells, sign, flips in ((trial.churn.cells, 1, allowed), (trial.quiet.cells, -1, 0)):
        for cell in cells:
            excess[cell.func] = excess.get(cell.func, 0) + sign * figure(cell, flips)
    func = max(excess, key=lambda func: excess[func], default="")
    return func if excess.get(func, 0) > 0 else ""


@lru_cache(maxsize=1024)
def cell_name(reason: str, origin: Origin, path: Path) -> str:
    """The identity of a cell across kernels, as a person reads it."""
    return f"{reason} {origin.value} {path.value}"


def _cell_costs(trial: Trial, containers: int) -> dict[str, float]:
    """What the containers cost, by cell. Wakeups and interrupts follow the node's other load, not its kernel."""
    each = containers * max(1, trial.node.cpus_online - 1)
    longer = churn_by_quiet(trial)
    above: dict[str, float] = {}
    for cell in trial.churn.cells:
        if cell.origin is not Origin.SCHED and cell.origin is not Origin.IRQ:
            name = cell_name(cell.reason, cell.origin, cell.path)
            above[name] = above.get(name, 0.0) + cell.requests
    for cell in trial.quiet.cells:
        name = cell_name(cell.reason, cell.origin, cell.path)
        if name in above:
            above[name] -= cell.requests * longer
    return {name: rise / each for name, rise in above.items() if rise > 0.0}
