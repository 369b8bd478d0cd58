"""The bill as series: bounded, with a complete sum, and with a row for each broadcasting creation-path cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from builders import containers, kick, trial, window
from kickwatch.attribution.reasons import REASONS
from kickwatch.detect.figures import above_quiet, total_requests
from kickwatch.model import Cell, ContentionRung, Control, IpiRung, Observers, Origin, Path, Trial
from kickwatch.outlets.metrics.bill import MOST_CELLS, REST, Bill, CellLabels, bill_of
from kickwatch.outlets.metrics.label_values import OTHER, REQUEST_REASONS

CELLS = st.builds(
    Cell,
    reason=st.one_of(st.sampled_from([reason.name for reason in REASONS]), st.text()),
    func=st.text(),
    origin=st.sampled_from(Origin),
    path=st.sampled_from(Path),
    requests=st.integers(0, 10**9),
    broadcasts=st.integers(0, 10**6),
    stack=st.tuples(st.text()),
)


def billed(made: Trial) -> Bill:
    bill = bill_of(made)
    assert bill is not None
    return bill


def with_cells(churn: list[Cell], quiet: list[Cell]) -> Trial:
    return trial(churn=window("churn", *churn), quiet=window("quiet", *quiet), containers=containers(10))


@given(st.lists(CELLS, min_size=1, max_size=80), st.lists(CELLS, max_size=5))
def test_it_is_bounded_and_its_labels_are_known(churn: list[Cell], quiet: list[Cell]) -> None:
    bill = billed(with_cells(churn, quiet))
    assert 1 <= len(bill) <= MOST_CELLS + 1
    assert REST in bill
    for row in set(bill) - {REST}:
        assert row.reason in REQUEST_REASONS
        assert row.origin in {*Origin, OTHER}
        assert row.path in set(Path)


@given(st.lists(CELLS, min_size=1, max_size=80))
def test_nothing_is_left_out_of_the_sum(churn: list[Cell]) -> None:
    made = with_cells(churn, [])
    bill = billed(made)
    requests = above_quiet(made, total_requests(churn), 0) / 10
    assert abs(sum(cost.requests for cost in bill.values()) - requests) <= 1e-6 * max(1.0, requests)
    assert round(sum(cost.broadcasts for cost in bill.values()) * 10) == sum(cell.broadcasts for cell in churn)


@given(st.lists(CELLS, min_size=MOST_CELLS, max_size=80), st.integers(1, 5))
def test_a_broadcast_of_the_creation_path_has_its_own_row(churn: list[Cell], broadcasts: int) -> None:
    elsewhere = [replace(cell, origin=Origin.NET, path=Path.OTHER) for cell in churn]
    bill = billed(with_cells([*elsewhere, kick(broadcasts)], []))
    assert bill[CellLabels("kick_all_cpus_sync", "slab", "create")].broadcasts == broadcasts / 10


def test_requests_are_above_the_quiet_rate_and_can_be_negative() -> None:
    cell = Cell(reason="do_sync_core", func="do_sync_core", origin=Origin.NET, path=Path.OTHER, requests=50)
    bill = billed(with_cells([cell], [replace(cell, requests=70)]))
    assert bill[CellLabels("do_sync_core", "net", "other")].requests == -2.0


def test_functions_with_the_same_reason_are_one_cell() -> None:
    bill = billed(with_cells([kick(1), replace(kick(2), func="kick_all_cpus_sync")], []))
    assert bill[CellLabels("kick_all_cpus_sync", "slab", "create")].broadcasts == 0.3


@pytest.mark.parametrize(
    "made",
    [
        trial(kick(5), containers=containers(0, failed=3)),
        trial(kick(5), control=Control(passed=False, detail="0 of 23")),
        trial(churn=window("churn"), observers=Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)),
        trial(churn=window("churn")),  # containers ran, and the probe saw nothing
    ],
)
def test_an_unknown_bill_is_not_a_bill_of_zeros(made: Trial) -> None:
    assert bill_of(made) is None
