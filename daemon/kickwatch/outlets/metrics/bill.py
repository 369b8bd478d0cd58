"""What one container costs, cell by cell, in a bounded number of series. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from kickwatch.detect.bill import trial_rows
from kickwatch.detect.figures import attributed, counted
from kickwatch.model import Cell, Origin, Path, Trial, on_creation_path
from kickwatch.outlets.metrics.label_values import OTHER, REQUEST_REASONS, known

MOST_CELLS = 16


class CellLabels(NamedTuple):
    """The cell of a series; all three are `other` in the row of what has none of its own."""

    reason: str
    origin: str
    path: str


class Cost(NamedTuple):
    """Per container, of the whole machine. Requests are above the quiet window's rate, so noise may make them negative.

    Broadcasts are as counted: the stack is the proof.
    """

    requests: float = 0.0
    broadcasts: float = 0.0


Bill = Mapping[CellLabels, Cost]

REST = CellLabels(OTHER, OTHER, OTHER)
EMPTY: Bill = {REST: Cost()}


def bill_of(trial: Trial) -> Bill | None:
    """At most MOST_CELLS cells of the churn window and the row `other`, which is always there and last.

    Those of the creation path that broadcast come first, then what broadcasts otherwise, then what sends most. None
    where it is not known: no container counts, or nothing attributed.
    """
    containers = len(counted(trial))
    if not containers or not attributed(trial):
        return None
    rows = trial_rows(trial, _labels)
    costs = {labels: Cost(row.above_quiet, row.broadcasts) for labels, row in rows.items() if row.with_containers}
    rest = costs.pop(REST, Cost())
    ordered = sorted(costs.items(), key=lambda item: _weight(*item), reverse=True)
    for _, cost in ordered[MOST_CELLS:]:
        rest = _sum(rest, cost)
    shown = [*ordered[:MOST_CELLS], (REST, rest)]
    return {row: Cost(cost.requests / containers, cost.broadcasts / containers) for row, cost in shown}


def _labels(cell: Cell) -> CellLabels:
    """The cell without its function; a reason that kickwatch has no name for is `other`, whatever its origin."""
    return CellLabels(known(cell.reason, REQUEST_REASONS), cell.origin.value, cell.path.value)


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.requests + other.requests, one.broadcasts + other.broadcasts)


def _weight(row: CellLabels, cost: Cost) -> tuple[float, float, float]:
    guilty = on_creation_path(Origin(row.origin), Path(row.path))
    return (cost.broadcasts if guilty else 0.0, cost.broadcasts, cost.requests)
