"""The figures of one half of a pair: what counts for each, and what is not known."""

import pytest

from kickwatch.experiment.half_figures import half_figures
from kickwatch.model import Cell, HalfFigures, Interrupts, MutexWait, Origin, Path, Window, WindowKind


def cell(origin: Origin, path: Path, broadcasts: int, isolated: int | None = None) -> Cell:
    return Cell(
        reason="do_sync_core",
        func="do_sync_core",
        origin=origin,
        path=path,
        requests=3 * broadcasts,
        broadcasts=broadcasts,
        isolated=isolated,
    )


def wait(path: Path, waits: int) -> MutexWait:
    return MutexWait(waiter="w", holder="h", waits=waits, wait_ns=1, max_wait_ns=1, path=path)


HALF = Window(
    kind=WindowKind.CHURN,
    duration_ns=10**9,
    interrupts=Interrupts(),
    cells=(
        cell(Origin.STATIC_KEY, Path.OTHER, 3, 6),
        cell(Origin.UNKNOWN, Path.CREATE, 4, 1),
        cell(Origin.MEMCG, Path.CREATE, 50, 0),
        cell(Origin.BPF, Path.OTHER, 60),
        cell(Origin.TRACING, Path.OTHER, 70),
    ),
    waits=(wait(Path.OTHER, 5), wait(Path.DESTROY, 2), wait(Path.CREATE, 11)),
)


def test_each_figure_counts_what_no_stack_explains() -> None:
    figures = half_figures(HALF, requests_seen=True, waits_seen=True, some_isolated=True)
    assert figures == HalfFigures(elsewhere=7, other_waits=7, isolated=7)


def test_an_empty_half_has_zeros() -> None:
    empty = Window(kind=WindowKind.CHURN, duration_ns=10**9, interrupts=Interrupts())
    figures = half_figures(empty, requests_seen=True, waits_seen=True, some_isolated=True)
    assert figures == HalfFigures(elsewhere=0, other_waits=0, isolated=0)


@pytest.mark.parametrize(
    ("missing", "figures"),
    [
        ("requests_seen", HalfFigures(other_waits=7)),
        ("waits_seen", HalfFigures(elsewhere=7, isolated=7)),
        ("some_isolated", HalfFigures(elsewhere=7, other_waits=7)),
    ],
)
def test_what_is_not_observed_is_not_known(missing: str, figures: HalfFigures) -> None:
    seen = {"requests_seen": True, "waits_seen": True, "some_isolated": True} | {missing: False}
    assert half_figures(HALF, **seen) == figures
