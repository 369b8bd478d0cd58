"""The bill as metrics: the cost of one container, cell by cell, in a bounded number of series. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from kickwatch.detect.bill import trial_rows
from kickwatch.detect.figures import attributed, counted
from kickwatch.model import Cell, Origin, Path, Trial, on_creation_path
from kickwatch.outlets.metrics.label_values import OTHER, REQUEST_REASONS, known

MOST_CELLS = 16


class CellLabels(NamedTuple):
    """The labels of a cell. All three are `other` in the row that sums up the cells not shown."""

    reason: str
    origin: str
    path: str


class Cost(NamedTuple):
    """Per container, all CPUs together. Requests are above the quiet window's rate, so noise can make them negative.

    Broadcasts are as counted: their stacks prove where they come from.
    """

    requests: float = 0.0
    broadcasts: float = 0.0


Bill = Mapping[CellLabels, Cost]

REST = CellLabels(OTHER, OTHER, OTHER)
EMPTY: Bill = {REST: Cost()}


def bill_of(trial: Trial) -> Bill | None:
    """At most MOST_CELLS cells of the churn window, then the row `other`, which is always there.

    Order: creation-path cells with broadcasts, other cells with broadcasts, cells with the most requests. None if the
    bill is unknown: all containers failed, or no probe attributed requests.
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
    """The cell without its function. A reason without a name in kickwatch is `other`, with any origin."""
    return CellLabels(known(cell.reason, REQUEST_REASONS), cell.origin.value, cell.path.value)


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.requests + other.requests, one.broadcasts + other.broadcasts)


def _weight(row: CellLabels, cost: Cost) -> tuple[float, float, float]:
    creation = on_creation_path(Origin(row.origin), Path(row.path))
    return (cost.broadcasts if creation else 0.0, cost.broadcasts, cost.requests)
