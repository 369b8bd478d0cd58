"""Sequences of trials for tests of the monitor: serial trials with known broadcasts, and the outcomes of many."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from msgspec.structs import replace

from builders import RCU, TLB, containers, kick, trial, window
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import Change, ChangeKind, State, TrialOutcome
from kickwatch.model import Cell, Container, Trial

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
