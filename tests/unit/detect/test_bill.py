"""The rows of the bill: what is merged, what is compared with quiet, and how rows add up."""

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, kick, trial, window
from kickwatch.detect.bill import BillRow, share, trial_rows, window_rows
from kickwatch.model import Cell


def by_reason(cell: Cell) -> str:
    return cell.reason


def test_the_key_decides_which_cells_make_one_row() -> None:
    cells = [kick(2), TLB, replace(kick(3), func="another")]
    assert {reason: (row.requests, row.broadcasts) for reason, row in window_rows(cells, by_reason).items()} == {
        "kick_all_cpus_sync": (15, 5),
        "flush_tlb_func": (1200, 0),
    }
    assert len(window_rows(cells, lambda cell: cell.identity)) == 3


def test_requests_are_compared_by_rate_and_broadcasts_are_not() -> None:
    """The quiet window is twice as long, so half of its 100 requests are expected in the churn window."""
    one = trial(
        churn=window("churn", replace(kick(4), requests=80)),
        quiet=window("quiet", replace(kick(6), requests=100), duration_ns=20_000_000_000),
    )
    assert trial_rows(one, by_reason) == {
        "kick_all_cpus_sync": BillRow(80, 4, quiet_requests=100, above_quiet=30.0, with_containers=True)
    }


def test_a_cell_of_the_quiet_window_alone_comes_last_and_is_negative() -> None:
    rows = trial_rows(trial(churn=window("churn", RCU), quiet=window("quiet", TLB)), by_reason)
    assert list(rows) == ["rcu_exp_handler", "flush_tlb_func"]
    assert rows["flush_tlb_func"] == BillRow(0, 0, quiet_requests=1200, above_quiet=-1200.0, with_containers=False)
    assert rows["rcu_exp_handler"].above_quiet == 160.0


def test_rows_of_several_trials_add_up() -> None:
    quiet_only, both = BillRow(0, 0, 7, -7.0), BillRow(10, 2, 4, 6.0, with_containers=True)
    assert quiet_only.plus(both) == both.plus(quiet_only) == BillRow(10, 2, 11, -1.0, with_containers=True)
    assert not quiet_only.plus(quiet_only).with_containers


@pytest.mark.parametrize(
    ("amount", "containers", "digits", "each"),
    [(10, 3, 3, 3.333), (10, 3, 1, 3.3), (0, 3, 3, 0.0), (10, 0, 3, None), (10, None, 3, None)],
)
def test_no_share_without_a_known_number_of_containers(
    amount: float, containers: int | None, digits: int, each: float | None
) -> None:
    assert share(amount, containers, digits) == each
