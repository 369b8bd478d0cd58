"""The stacks that send, as a tree from the root frame to the function that the CPUs run: an icicle graph. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEAST_SHARE = 0.004  # of the total: narrower frames are drawn as one
MOST_DEPTH = 40
MOST_FRAMES = 400
NO_STACK = "(no stack)"
REST = "(narrower frames)"


@dataclass(slots=True)
class _Frame:
    name: str
    amount: int = 0
    cell: str = ""
    below: dict[str, "_Frame"] = field(default_factory=dict)


def stack_tree(amounts: Mapping[tuple[str, tuple[str, ...]], tuple[int, str]]) -> list[dict[str, Any]]:
    """Frames as rectangles: `x0` to `x1` in the unit of the amounts, `depth` from 0 at the root.

    Of more than MOST_FRAMES, the widest. `amounts`: (func, stack, innermost frame first): (amount, `origin/path`).
    The leaf is the func, in brackets.
    """
    root = _Frame("")
    for (func, stack), (amount, cell) in sorted(amounts.items(), key=lambda item: item[0]):
        outermost_first = [*reversed(stack)][:MOST_DEPTH] or [NO_STACK]
        frame = root
        frame.amount += amount
        for name in (*outermost_first, f"[{func}]"):
            frame = frame.below.setdefault(name, _Frame(name))
            frame.amount += amount
            frame.cell = cell if frame.cell in {"", cell} else "several"
    found: list[dict[str, Any]] = []
    _lay_out(root, 0, -1, max(1.0, root.amount * LEAST_SHARE), found)
    if len(found) <= MOST_FRAMES:
        return found
    least = sorted((each["x1"] - each["x0"] for each in found), reverse=True)[MOST_FRAMES]
    return [each for each in found if each["x1"] - each["x0"] > least]


def _lay_out(frame: _Frame, left: int, depth: int, least: float, found: list[dict[str, Any]]) -> None:
    if depth >= 0:
        found.append(_rectangle(frame.name, left, frame.amount, depth, frame.cell))
    narrow = 0
    for each in sorted(frame.below.values(), key=lambda below: (-below.amount, below.name)):
        if each.amount < least:
            narrow += each.amount
            continue
        _lay_out(each, left, depth + 1, least, found)
        left += each.amount
    if narrow >= least:
        found.append(_rectangle(REST, left, narrow, depth + 1, "several"))


def _rectangle(name: str, left: int, amount: int, depth: int, cell: str) -> dict[str, Any]:
    return {"frame": name, "x0": left, "x1": left + amount, "depth": depth, "of": cell}
