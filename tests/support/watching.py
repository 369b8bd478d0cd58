"""Sequences of trials for tests of the monitor: serial trials with known broadcasts, and the outcomes of many."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, window
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import Change, ChangeKind, State, TrialOutcome
from kickwatch.model import Cell, Container, HalfFigures, Origin, Pair, Path, Trial

PACE = Pace(containers=10, period_s=70.0)
_numbers = count()


def lives(number: int, each: int | None) -> tuple[Container, ...]:
    """`number` containers, each with `each` broadcasts by the creation path."""
    return tuple(replace(life, creation_path_broadcasts=each) for life in containers(number))


def serial(each: int = 0, *cells: Cell, number: int = 10, **fields: Any) -> Trial:
    """A serial trial of 10 containers with `each` broadcasts, sent by a kworker that creates slab caches."""
    guilty = (kick(each * number),) if each else ()
    given = {
        "trial_id": f"{next(_numbers):08x}",
        "containers": lives(number, each),
        "churn": window("churn", TLB, RCU, *guilty, *cells),
        "quiet": window("quiet", replace(TLB, requests=100)),
        "canary": None,
    }
    return trial(**(given | fields))


def flips(broadcasts: int) -> Cell:
    """Broadcasts from outside the creation path: a worker flips a static key."""
    return Cell(
        reason="do_sync_core",
        func="do_sync_core",
        origin=Origin.STATIC_KEY,
        path=Path.OTHER,
        requests=3 * broadcasts,
        calls=broadcasts,
        broadcasts=broadcasts,
        singles=0,
    )


def paired(*differences: int, waits: int = 0, isolated: int = 0, **fields: Any) -> Trial:
    """A trial of a pair for each difference of broadcasts elsewhere; `waits` and `isolated` are those of every pair."""
    halves = [(max(difference, 0), max(-difference, 0)) for difference in differences]
    more, fewer = (sum(half) for half in zip(*halves, strict=True))
    given = {
        "number": len(differences),
        "pairs": tuple(pair(*half, waits=waits, isolated=isolated) for half in halves),
        "churn": window("churn", TLB, RCU, *([flips(more)] if more else [])),
        "quiet": window("quiet", replace(TLB, requests=100), *([flips(fewer)] if fewer else [])),
    }
    return serial(0, **(given | fields))


def pair(churn: int | None, quiet: int | None, *, waits: int = 0, isolated: int = 0, **fields: Any) -> Pair:
    """A pair with so many broadcasts elsewhere in its halves, and more waits and requests in the churn half."""
    return Pair(
        churn_first=True,
        half_ns=400_000_000,
        churn=HalfFigures(elsewhere=churn, other_waits=max(waits, 0), isolated=max(isolated, 0)),
        quiet=HalfFigures(elsewhere=quiet, other_waits=max(-waits, 0), isolated=max(-isolated, 0)),
        **fields,
    )


def watched(monitor: Monitor, trials: Iterable[Trial], state: State | None = None) -> tuple[State, list[TrialOutcome]]:
    """The state after these trials, and the outcome of each."""
    state = state or monitor.start()
    outcomes = []
    for one in trials:
        state, outcome = monitor.step(state, one)
        outcomes.append(outcome)
    return state, outcomes


def changes(outcomes: Iterable[TrialOutcome], *kinds: ChangeKind) -> list[Change]:
    """All changes, or those of the given kinds."""
    return [change for outcome in outcomes for change in outcome.changes if not kinds or change.kind in kinds]
