"""Stacks as a tree of frames, each stored once: `stackFrames` of the JSON trace format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StackFrames:
    """The frames so far. An id stands for a frame and all its callers."""

    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ids: dict[tuple[int | None, str], int] = field(default_factory=dict)

    def of(self, stack: Sequence[str]) -> int | None:
        """The id of the innermost frame of a stack (innermost first); None for an empty one."""
        parent: int | None = None
        for name in reversed(stack):
            known = self._ids.get((parent, name))
            if known is None:
                known = self._ids[parent, name] = len(self._ids) + 1
                frame: dict[str, Any] = {"category": "kernel", "name": name}
                self.table[str(known)] = frame if parent is None else frame | {"parent": str(parent)}
            parent = known
        return parent
