"""How many containers others started, as a total that only rises, and why it may not be known."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from kickwatch.observe.containers import CgroupCounts
from kickwatch.observe.losses import Lost, causes
from kickwatch.observe.observatory import Observatory

_LOST = "{lost} cgroup events found the probe's map full: the count is a lower bound"


@dataclass(frozen=True)
class Counted:
    """Totals, or what they rose by. `known`: the containers, None if some may not have been counted.

    `made`: cgroups of all kinds, in all hierarchies; `lost`: events without room; `strangers`: tasks of containers that
    could not be noted; `inside`: cgroups that containers made inside themselves; `pending`: runs of a runtime that may
    be containers, now; `armed`: the probe counted all these.
    """

    by_engine: Counter[str] = field(default_factory=Counter)
    made: int = 0
    lost: int = 0
    armed: bool = False
    strangers: int = 0
    inside: int = 0
    pending: int = 0

    @property
    def containers(self) -> int:
        """At least so many were started."""
        return self.by_engine.total()

    @property
    def known(self) -> int | None:
        """How many were started."""
        return self.containers if self.armed and not self.lost else None

    def since(self, before: "Counted") -> "Counted":
        """What rose. A span that begins before the probe was armed is known from then on."""
        return Counted(
            self.by_engine - before.by_engine,
            self.made - before.made,
            self.lost - before.lost,
            self.armed,
            self.strangers - before.strangers,
            self.inside - before.inside,
            self.pending,
        )


class ContainerCount:
    """The probe's count. Without a probe nothing is known, and `why_unknown` says why."""

    def __init__(self, observatory: Observatory) -> None:
        self._observatory = observatory
        self._counts = CgroupCounts()

    @property
    def armed(self) -> bool:
        """True once the probe counts."""
        return self._observatory.containers is not None

    async def begin(self) -> Counted:
        """The totals to count from: of the arming, the session before, or of now after trials. Raises ObserveError."""
        if self._observatory.containers is not None:
            self._observatory.containers.follow()
            self._counts = self._observatory.containers.latest
        return self.now()

    async def drain(self) -> None:
        """Take the events that came. Raises ObserveError."""
        if self._observatory.containers is not None:
            self._counts = self._observatory.containers.drain()

    async def keep_draining(self, every_s: float) -> None:
        """For ever. Raises ObserveError."""
        while True:
            await asyncio.sleep(every_s)
            await self.drain()

    def now(self) -> Counted:
        """The totals as of the last `drain`."""
        probe = self._observatory.containers
        if probe is None:
            return Counted()
        counts, ledger = self._counts, probe.ledger
        return Counted(
            Counter(ledger.started),
            counts.made,
            counts.lost - probe.lost_unfollowed,
            armed=True,
            strangers=counts.strangers,
            inside=counts.inside,
            pending=ledger.pending,
        )

    def why_unknown(self, counted: Counted) -> str:
        """Why the number is not known, with the remedy; empty if it is."""
        what, remedy = self.cause(counted)
        return f"{what}; fix: {remedy}" if remedy else what

    def cause(self, counted: Counted) -> tuple[str, str]:
        """(why the number is not known, what helps); empty if it is known."""
        if counted.known is not None:
            return "", ""
        if self.armed:
            return _LOST.format(lost=counted.lost), ""
        what, remedy = causes(self._observatory.lost(Lost.CONTAINERS))
        return what or "the probe is not armed yet", remedy
