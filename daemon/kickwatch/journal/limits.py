"""How often an event may be logged: a token bucket per name, so that a node in trouble does not fill its journal.

What is dropped is counted, and the next record of that name says how many there were (`suppressed`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog
from structlog.types import EventDict


@dataclass(frozen=True)
class Rate:
    """`burst` records at once, and one more every `period_s`."""

    burst: int
    period_s: float


@dataclass
class _Bucket:
    tokens: float
    filled_at_s: float
    suppressed: int = 0


class Limiter:
    """A structlog processor. `clock` is in seconds and never goes back; `spared` names are always let through."""

    def __init__(
        self, rates: Mapping[str, Rate], default: Rate, spared: Collection[str], clock: Callable[[], float]
    ) -> None:
        """`default` is for the names that `rates` has not."""
        self._rates = rates
        self._default = default
        self._spared = frozenset(spared)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, name: str) -> int | None:
        """None: drop this record. Else how many of that name were dropped since the last one that passed."""
        if name in self._spared:
            return 0
        rate, now_s = self._rates.get(name, self._default), self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(rate.burst, now_s))
        bucket.tokens = min(rate.burst, bucket.tokens + (now_s - bucket.filled_at_s) / rate.period_s)
        bucket.filled_at_s = now_s
        if bucket.tokens < 1.0:
            bucket.suppressed += 1
            return None
        bucket.tokens -= 1.0
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        """Raises DropEvent, which structlog takes as the end of this record."""
        suppressed = self.admit(str(event["event"]))
        if suppressed is None:
            raise structlog.DropEvent
        return {**event, "suppressed": suppressed} if suppressed else event
