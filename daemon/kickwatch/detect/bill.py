"""The bill: what the containers of a window cost, cell by cell. Pure.

The journal's summary, the metrics, the report of a trial and passive mode render these rows. Each chooses how much of a
cell makes a row (`key`), which rows it shows, and how many digits.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

from kickwatch.detect.figures import above_quiet
from kickwatch.model import Cell, Trial

Key = TypeVar("Key", bound=Hashable)


class BillRow(NamedTuple):
    """What the cells of one key sent during windows with containers.

    Requests are compared with the quiet windows. Broadcasts are not: the stack proves where they come from.
    """

    requests: int = 0
    broadcasts: int = 0
    quiet_requests: int = 0  # of the quiet windows, for the same key
    above_quiet: float = 0.0  # requests beyond the quiet windows' rate; can be negative, since noise has two signs
    with_containers: bool = False  # False for a key that only quiet windows have

    def plus(self, other: "BillRow") -> "BillRow":
        """The sum of both rows."""
        return BillRow(
            self.requests + other.requests,
            self.broadcasts + other.broadcasts,
            self.quiet_requests + other.quiet_requests,
            self.above_quiet + other.above_quiet,
            self.with_containers or other.with_containers,
        )


def window_rows(cells: Iterable[Cell], key: Callable[[Cell], Key]) -> dict[Key, BillRow]:
    """The rows of a window that has no quiet window to compare with, in the order of its cells."""
    rows: dict[Key, BillRow] = {}
    for cell in cells:
        sent = BillRow(cell.requests, cell.broadcasts, 0, float(cell.requests), with_containers=True)
        of = key(cell)
        rows[of] = rows.get(of, BillRow()).plus(sent)
    return rows


def trial_rows(trial: Trial, key: Callable[[Cell], Key]) -> dict[Key, BillRow]:
    """The rows of a trial: those of the churn window in the order of its cells, then those of the quiet window alone.

    A sum over several trials needs the latter too: a cell that one trial has in its quiet window and another in its
    churn window would otherwise look too expensive.
    """
    churn, quiet = window_rows(trial.churn.cells, key), window_rows(trial.quiet.cells, key)
    rows: dict[Key, BillRow] = {}
    for of in (*churn, *(of for of in quiet if of not in churn)):
        sent, background = churn.get(of, BillRow()), quiet.get(of, BillRow()).requests
        above = above_quiet(trial, sent.requests, background)
        rows[of] = sent._replace(quiet_requests=background, above_quiet=above)
    return rows


def share(amount: float, containers: int | None, digits: int = 3) -> float | None:
    """The share of one container, rounded. None if there are no containers, or an unknown number."""
    return round(amount / containers, digits) if containers else None
