"""Whether the node is drained: by SIGUSR1, or by the drain file."""

from typing import Protocol

from kickwatch.outlets.events import Drained, Undrained
from kickwatch.outlets.outlet import Report


class DrainSource(Protocol):
    """Where a drain comes from."""

    async def drained_by(self) -> str:
        """`signal`, `file`, or an empty string."""


class Drain:
    """Reports each change once, also across reloads."""

    def __init__(self, source: DrainSource, report: Report) -> None:
        """Not drained until `look` finds otherwise."""
        self._source = source
        self._report = report
        self.reported = ""  # what drained the node, as last reported

    async def look(self) -> str:
        """What drains the node now; empty if nothing does."""
        by = await self._source.drained_by()
        before, self.reported = self.reported, by
        if by and not before:
            await self._report(Drained(by))
        if before and not by:
            await self._report(Undrained(before))
        return by


def drained_text(by: str) -> str:
    """`drained (drain file present): not starting containers`."""
    cause = {"file": "drain file present", "signal": "SIGUSR1 received"}.get(by, by)
    return f"drained ({cause}): not starting containers"
