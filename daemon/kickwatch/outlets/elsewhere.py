"""Broadcasts that come with containers from outside the creation path: which, how many, and the fields of an alert."""

from collections.abc import Sequence
from typing import Any

import msgspec

from kickwatch.attribution.reasons import explain
from kickwatch.detect.classes import BroadcastClass, class_of, flips_allowed, patched_by
from kickwatch.model import Trial
from kickwatch.outlets.broadcast import bpftrace_line, identity, sender
from kickwatch.outlets.excess import Excess, containers_of, excesses
from kickwatch.outlets.isolation import hit_field

MIN_SHOWN = 0.05  # broadcasts per container above the quiet window: fewer are chance
_DIGITS = 3


class OtherBroadcasts(msgspec.Struct, frozen=True, kw_only=True):
    """Broadcasts during churn from outside the creation path; per container, above the quiet window.

    `heard_as` is the class that judges them: that of the freezer's, where they are more than its key explains, is
    ELSEWHERE.
    """

    heard_as: BroadcastClass
    reason: str
    func: str
    origin: str
    path: str
    broadcasts_per_container: float
    stack: tuple[str, ...]


def other_broadcasts(trials: Sequence[Trial]) -> tuple[OtherBroadcasts, ...]:
    """All of them over the trials of one run, most frequent first; none if no container counts."""
    containers = containers_of(trials)
    if not containers:
        return ()
    found = [(one, one.above_quiet / containers) for one in excesses(trials, lambda cell: cell.broadcasts)]
    return tuple(
        _row(one, each, _unexplained(one, trials) / containers)
        for one, each in found
        if each >= MIN_SHOWN and class_of(one.cell.origin, one.cell.path) is not BroadcastClass.CREATION
    )


def _row(one: Excess, each: float, unexplained: float) -> OtherBroadcasts:
    cell = one.cell
    return OtherBroadcasts(
        heard_as=BroadcastClass.ELSEWHERE if unexplained >= MIN_SHOWN else class_of(cell.origin, cell.path),
        reason=cell.reason,
        func=cell.func,
        origin=cell.origin.value,
        path=cell.path.value,
        broadcasts_per_container=round(each, _DIGITS),
        stack=cell.stack,
    )


def _unexplained(one: Excess, trials: Sequence[Trial]) -> float:
    """What is compared with quiet windows: of the freezer's, what its key does not explain; of attributed ones none."""
    of = class_of(one.cell.origin, one.cell.path)
    if of is BroadcastClass.FREEZER:
        allowed = sum(flips_allowed(trial.node, len(trial.containers)) for trial in trials)
        return one.above_quiet - (allowed if patched_by(one.cell) else 0)
    return one.above_quiet if of is BroadcastClass.ELSEWHERE else 0.0


def elsewhere_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.elsewhere_detected`: the cell with the most broadcasts above quiet is to blame."""
    containers = containers_of(trials)
    found = [Excess(one.cell, _unexplained(one, trials)) for one in excesses(trials, lambda cell: cell.broadcasts)]
    heard = [one for one in found if one.above_quiet > 0]
    worst = max(heard, key=lambda one: one.above_quiet) if heard and containers else None
    cell = worst.cell if worst is not None else None
    fields: dict[str, Any] = identity(trials) | {
        "headline": _headline(worst, containers),
        "meaning": explain(cell.func) if cell is not None else "the newest trials do not show which function.",
        "cpus_online": trials[-1].node.cpus_online,
        "containers": containers,
        "confirm": bpftrace_line(cell, trials[-1].observers.ipis),
    }
    if worst is not None and cell is not None:
        fields |= {
            "reason": cell.reason,
            "func": cell.func,
            "origin": cell.origin.value,
            "path": cell.path.value,
            "broadcasts_per_container": round(worst.above_quiet / containers, _DIGITS),
            "stack": list(cell.stack),
        }
    return fields | hit_field(trials)


def _headline(worst: Excess | None, containers: int) -> str:
    if worst is None:
        return "broadcasts come with containers from outside the creation path"
    cell, each = worst.cell, round(worst.above_quiet / containers, _DIGITS)
    what = f"{each:g} x {cell.reason} ({cell.origin.value}, {cell.path.value}) per container"
    return f"{what}, from outside the creation path, sent by {sender(cell, 'a task or an interrupt')}"
