"""Trials in sequence for tests of the monitor: serial lives with known rises, and a watch over many of them."""

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
    """So many containers, each with that rise of the creation path."""
    return tuple(replace(life, creation_path_broadcasts=each) for life in containers(number))


def serial(each: int = 0, *cells: Cell, number: int = 10, **fields: Any) -> Trial:
    """A serial trial in which each of 10 containers broadcasts so often, from a kworker that creates slab caches."""
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
    """The state after these trials, and what each said."""
    state = state or monitor.start()
    outcomes = []
    for one in trials:
        state, outcome = monitor.step(state, one)
        outcomes.append(outcome)
    return state, outcomes


def changes(outcomes: Iterable[TrialOutcome], *kinds: ChangeKind) -> list[Change]:
    """All changes of these kinds, or of any."""
    return [change for outcome in outcomes for change in outcome.changes if not kinds or change.kind in kinds]
