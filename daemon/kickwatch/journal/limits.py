"""Rate limits: a token bucket per event name, so a node in trouble does not fill its journal.

Dropped records are counted, and the next record of that name has their number (`suppressed`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog
from structlog.types import EventDict


@dataclass(frozen=True)
class Rate:
    """`burst` records at once, then one more every `period_s`."""

    burst: int
    period_s: float


@dataclass
class _Bucket:
    tokens: float
    filled_at_s: float
    suppressed: int = 0


class Limiter:
    """A structlog processor. `clock` is monotonic, in seconds. Records named in `spared` always pass."""

    def __init__(
        self, rates: Mapping[str, Rate], default: Rate, spared: Collection[str], clock: Callable[[], float]
    ) -> None:
        """`default` is the rate of names that are not in `rates`."""
        self._rates = rates
        self._default = default
        self._spared = frozenset(spared)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, name: str) -> int | None:
        """None to drop the record; else the number of that name dropped since the last one that passed."""
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
        """Raises DropEvent to drop the record."""
        suppressed = self.admit(str(event["event"]))
        if suppressed is None:
            raise structlog.DropEvent
        return {**event, "suppressed": suppressed} if suppressed else event
