"""Slices on one track must nest: what overlaps otherwise goes to a further track beside it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Slice:
    """Something with a begin and an end, in ns. `arrows`: (when, id, whether it begins here) of flows."""

    name: str
    began_ns: int
    ended_ns: int
    category: str
    args: dict[str, Any] = field(default_factory=dict)
    frame: int | None = None
    arrows: list[tuple[int, int, bool]] = field(default_factory=list)


def lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """As few tracks as it takes, in each of which two slices are apart, or one is inside the other."""
    found: list[list[Slice]] = []
    ends: list[list[int]] = []  # the ends of the open slices of each lane, the innermost last
    for one in sorted(slices, key=lambda each: (each.began_ns, -each.ended_ns)):
        lane = next((at for at, still in enumerate(ends) if _fits(still, one)), len(found))
        if lane == len(found):
            found.append([])
            ends.append([])
        found[lane].append(one)
        ends[lane].append(one.ended_ns)
    return found


def _fits(still_open: list[int], one: Slice) -> bool:
    while still_open and still_open[-1] <= one.began_ns:
        still_open.pop()
    return not still_open or one.ended_ns <= still_open[-1]
