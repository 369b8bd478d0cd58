"""What the observers counted since the last look, per second: for `kickwatch watch`, during trials and between them.

Reading the maps of a probe takes about a millisecond and sends nothing. It never takes more than a thousandth of a CPU:
the more CPU time a look takes, the later is the next one.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from kickwatch.errors import ObserveError
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.windows import Sample
from kickwatch.outlets.live_status import Rates
from kickwatch.outlets.metrics.live import Live, live_of
from kickwatch.outlets.metrics.rising import Counts, Rising

Label = TypeVar("Label", bound=Hashable)
_REST = 1000  # a look that takes 10 ms of CPU time is followed by 10 s without one
_LONGEST_REST_S = 60.0


class LiveRates:
    """The rise between two looks, source by source: maps are emptied, and CPUs go offline."""

    def __init__(
        self,
        observatory: Observatory,
        now_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """The first look only notes where the counters stand. `cpu_s`: CPU time of the thread that looks."""
        self._observatory = observatory
        self._now_s, self._cpu_s = now_s, cpu_s
        self._requests: Rising[str] = Rising(())
        self._interrupts: Rising[str] = Rising((), sources_return=True)
        self._waits: Rising[int] = Rising(())
        self._wait_ns: Rising[str] = Rising(())
        self._broadcasts: int | None = None
        self._since_ns: int | None = None
        self._next_s = 0.0
        self._latest: Rates | None = None

    async def read(self) -> Rates | None:
        """The rates since the look before. None before the second look, and if the kernel refuses a figure."""
        if self._now_s() < self._next_s:
            return self._latest
        first, begun_s = self._since_ns is None, self._cpu_s()
        try:
            sample = await self._observatory.sample()
            self._latest = self._rates(sample)
        except ObserveError:
            self._latest = None
        rest_s = 0.0 if first else min(_LONGEST_REST_S, _REST * (self._cpu_s() - begun_s))
        self._next_s = self._now_s() + rest_s
        return self._latest

    def _rates(self, sample: Sample) -> Rates | None:
        live, since_ns = live_of(self._observatory, sample), self._since_ns
        self._since_ns = sample.at_ns
        broadcasts = self._creation_broadcasts(sample)
        if since_ns is None:
            self._rise(live, count=False)
            return None
        span_s = (sample.at_ns - since_ns) / 1e9
        requests, interrupts, waits, wait_ns = self._rise(live, count=True)
        known = live.waits_known
        return Rates(
            span_s=round(span_s, 3),
            requests=_per_s(requests, span_s) if sample.requests is not None else None,
            interrupts=_per_s(interrupts, span_s),
            creation_broadcasts=broadcasts,
            waits=round(sum(waits.values()) / span_s, 3) if known else None,
            wait_ms=round(sum(wait_ns.values()) / 1e6 / span_s, 3) if known else None,
        )

    def _creation_broadcasts(self, sample: Sample) -> int | None:
        """The rise since the look before; None without a probe, and where its maps were emptied meanwhile."""
        probe, before = self._observatory.requests, self._broadcasts
        if probe is None or sample.requests is None:
            self._broadcasts = None
            return None
        self._broadcasts = probe.creation_broadcasts(sample.requests)
        return None if before is None or self._broadcasts < before else self._broadcasts - before

    def _rise(
        self, live: Live, *, count: bool
    ) -> tuple[Mapping[str, int], Mapping[str, int], Mapping[int, int], Mapping[str, int]]:
        """Requests, interrupts, waits and ns of waiting since the look before."""
        wait_ns = {"": live.wait_ns}
        return (
            _rise_of(self._requests, live.requests, count=count),
            _rise_of(self._interrupts, live.interrupts, count=count),
            _rise_of(self._waits, live.waits, count=count),
            _rise_of(self._wait_ns, wait_ns, count=count),
        )


def _rise_of(rising: Rising[Label], counts: Counts[Label], *, count: bool) -> dict[Label, int]:
    """The rise since the look before, by label."""
    before = dict(rising.totals)
    if count:
        rising.feed(counts)
    else:
        rising.skip(counts)
    return {label: total - before.get(label, 0) for label, total in rising.totals.items()}


def _per_s(rises: Mapping[str, int], span_s: float) -> dict[str, float]:
    """Per second, without the labels that did not rise."""
    return {label: round(rise / span_s, 2) for label, rise in rises.items() if rise}
