"""What reaches isolated CPUs while kickwatch works outside the halves and windows of its trials.

No probe counts what arming and disarming it sends, so /proc/interrupts is read around each kind of work, too. Both
figures include what others send meanwhile: they are upper bounds of what kickwatch sends.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from kickwatch.errors import ObserveError
from kickwatch.model import WindowKind
from kickwatch.node.roots import HOST
from kickwatch.observe.interrupts import InterruptSample, read_interrupts
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.windows import Sample

_ROWS = ("CAL", "RES")  # on x86, CAL includes TLB


class Work(StrEnum):
    """What kickwatch does outside halves and windows. `start_to_stop` is everything, halves and windows included."""

    START_TO_STOP = "start_to_stop"
    ARMING = "arming"
    CONTROL = "control"
    WARM_UP = "warm_up"
    CANARY = "canary"
    RECLAIM = "reclaim"
    DISARMING = "disarming"


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """Call-function requests to isolated CPUs, as the probe counts them, and interrupts there. None: not counted."""

    requests: int | None = None
    interrupts: int | None = None


class OwnWork:
    """The figures of one run, by kind of work in the order in which it began. Empty where no CPU is isolated."""

    def __init__(self, isolated: Sequence[int] = (), proc: Path = HOST.proc) -> None:
        """`isolated`: the CPUs to look at; they may be set later, before the first `during`."""
        self.isolated = tuple(isolated)
        self.reached: dict[Work, Reached] = {}
        self._proc = proc

    @asynccontextmanager
    async def during(self, work: Work, observatory: Observatory | None = None) -> AsyncIterator[None]:
        """Count what reaches isolated CPUs while the body runs, which is `work`, and add it up.

        `observatory`: armed, and stays so; without one there are no requests. Nothing is added if the body fails.
        """
        if not self.isolated:
            yield
            return
        before = await self._read(observatory)
        so_far = self.reached.setdefault(work, Reached(requests=0, interrupts=0))
        yield
        rise = self._rise(before, await self._read(observatory), observatory)
        self.reached[work] = Reached(
            requests=_sum(so_far.requests, rise.requests), interrupts=_sum(so_far.interrupts, rise.interrupts)
        )

    async def _read(self, observatory: Observatory | None) -> Sample | None:
        """None if the kernel refuses a reading: a trial finds that out, and says so."""
        try:
            if observatory is not None:
                return await observatory.sample()
            return Sample(0, await read_interrupts(self._proc), None, None)
        except (ObserveError, OSError):
            return None

    def _rise(self, before: Sample | None, after: Sample | None, observatory: Observatory | None) -> Reached:
        if before is None or after is None:
            return Reached()
        per_cpu = observatory.window(WindowKind.CONTROL, before, after).per_cpu if observatory is not None else None
        return Reached(
            requests=None if per_cpu is None else sum(per_cpu[cpu] for cpu in self.isolated if cpu < len(per_cpu)),
            interrupts=self._interrupts(before.interrupts, after.interrupts),
        )

    def _interrupts(self, before: InterruptSample, after: InterruptSample) -> int | None:
        rows = [(early, late) for kind in _ROWS if (early := before.row(kind)) and (late := after.row(kind))]
        if not rows:
            return None
        return sum(late.get(cpu, 0) - early.get(cpu, 0) for early, late in rows for cpu in self.isolated)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
