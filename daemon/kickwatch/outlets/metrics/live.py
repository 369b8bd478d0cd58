"""What the observers have counted so far, for the metrics: cumulative figures, read at every scrape.

They rise during trials and between them. Each figure keeps its source (a CPU, a key of a probe's map), since a source
can fall: full maps are emptied, CPUs go offline. `rising` turns them into counters that never fall.
"""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from kickwatch.attribution.reasons import reason_of
from kickwatch.observe.contention import ContentionSample
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.request_cells import RequestSample
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample, unseen
from kickwatch.outlets.metrics.label_values import CONTAINERS, ENGINES, REQUEST_REASONS, Observer, known
from kickwatch.outlets.metrics.rising import Counts

_WHOLE = 0  # the source of a figure that has only one


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative figures of one moment, by label and source. An observer that is not armed has none."""

    interrupts: Counts[str] = {}  # kind, CPU: since boot
    requests: Counts[str] = {}  # reason, key of the probe's map: since the probe was armed
    waits: Counts[int] = {}  # i: waits for slab_mutex in [2**i, 2**(i+1)) ns
    wait_ns: Mapping[Any, int] = {}  # time spent waiting for slab_mutex, by key of the probe's map
    lost: Counts[str] = {}  # observer: events that it did not count
    up: Mapping[str, bool] = {}
    waits_known: bool = False
    others: Counts[str] = {}  # engine: containers that others started
    others_known: bool = False


def live_of(observatory: Observatory, sample: Sample) -> Live:
    """The figures of `sample`, with names, which are in memory.

    In passive mode it reads a counter. Raises ObserveError.
    """
    mutex = observatory.contention.slab_mutex if observatory.contention is not None else 0
    requests, contention = sample.requests, sample.contention
    return Live(
        interrupts={
            kind.value: dict(zip(sample.interrupts.cpus, counts, strict=True))
            for kind, counts in sample.interrupts.counts.items()
        },
        requests=_requests(requests, observatory.symbols) if requests is not None else {},
        waits={bucket: {_WHOLE: count} for bucket, count in enumerate(contention.histogram if contention else ())},
        wait_ns=_wait_ns(contention, mutex) if contention is not None else {},
        lost=_lost(requests, contention),
        up={
            Observer.REQUESTS: requests is not None,
            Observer.CONTENTION: contention is not None,
            Observer.INTERRUPTS: bool(sample.interrupts.counts),
            **_containers_up(observatory),
        },
        waits_known=observatory.waits_known,
        others=_others(observatory),
        others_known=observatory.containers is not None and observatory.containers.complete(),
    )


def _containers_up(observatory: Observatory) -> dict[str, bool]:
    """Whether the containers of others are observed; nothing in a daemon that was never passive."""
    return {CONTAINERS: observatory.containers is not None} if observatory.passive else {}


def _others(observatory: Observatory) -> Counts[str]:
    found: dict[str, dict[str, int]] = {}
    if observatory.containers is not None:
        for engine, containers in observatory.containers.ledger.started.items():
            found.setdefault(known(engine, ENGINES), {})[engine] = containers
    return found


def _requests(requests: RequestSample, symbols: Symbols) -> Counts[str]:
    found: dict[str, dict[bytes, int]] = {}
    reasons: dict[int, str] = {}
    for key, totals in requests.totals.items():
        func = _first_word(key)
        if func not in reasons:
            reasons[func] = known(reason_of(symbols.resolve(func)).name, REQUEST_REASONS)
        found.setdefault(reasons[func], {})[key] = totals.requests
    return found


def _wait_ns(contention: ContentionSample, mutex: int) -> dict[bytes, int]:
    return {key: totals.wait_ns for key, totals in contention.totals.items() if mutex and _first_word(key) == mutex}


def _lost(requests: RequestSample | None, contention: ContentionSample | None) -> Counts[str]:
    found = {}
    if requests is not None:
        found[Observer.REQUESTS.value] = {_WHOLE: unseen(RequestSample({}), requests)[0]}
    if contention is not None:
        found[Observer.CONTENTION.value] = {_WHOLE: unseen(ContentionSample({}), contention)[0]}
    return found


def _first_word(key: bytes) -> int:
    """`func` of `struct cell_key`, `lock` of `struct wait_key`."""
    return int.from_bytes(key[:8], sys.byteorder)
