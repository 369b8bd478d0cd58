"""What all observers read at one moment, and what rose between two such moments."""

from dataclasses import dataclass

from msgspec.structs import replace

from kickwatch.model import Disturbance, Interrupts, Window, WindowKind
from kickwatch.observe.contention import ContentionObserver, ContentionSample
from kickwatch.observe.interrupts import InterruptSample, Reset, rise
from kickwatch.observe.ipis import Ipis
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestSample, by_target, fell
from kickwatch.observe.requests import RequestObserver


@dataclass(frozen=True)
class Sample:
    """Cumulative figures of all observers at one moment."""

    at_ns: int
    interrupts: InterruptSample
    requests: RequestSample | None
    contention: ContentionSample | None
    ipis: Ipis | None = None
    members: RequestSample | None = None


def window_between(
    kind: WindowKind,
    before: Sample,
    after: Sample,
    requests: RequestObserver | None,
    contention: ContentionObserver | None,
) -> Window:
    """What rose between two samples, named by the probes that took them: without one, its figures are unknown."""
    interrupts = rise(before.interrupts, after.interrupts)
    window = Window(
        kind=kind,
        duration_ns=after.at_ns - before.at_ns,
        interrupts=Interrupts() if isinstance(interrupts, Reset) else interrupts,
        disturbances=(interrupts.reason,) if isinstance(interrupts, Reset) else (),
        isolated_ipis=after.ipis.isolated - before.ipis.isolated if before.ipis and after.ipis else None,
    )
    if requests is not None:
        window = _with_cells(window, before, after, requests)
    return _with_waits(window, before, after, contention) if contention is not None else window


def _with_cells(window: Window, before: Sample, after: Sample, observer: RequestObserver) -> Window:
    if before.requests is None or after.requests is None:
        return window
    lost, stackless = unseen(before.requests, after.requests)
    recycled = fell(before.requests.totals, after.requests.totals)
    return replace(
        window,
        cells=observer.cells(before.requests, after.requests, patches_count=window.kind is not WindowKind.PASSIVE),
        lost_events=window.lost_events + lost,
        lost_requests=uncounted(before.requests, after.requests),
        stackless_events=window.stackless_events + stackless,
        disturbances=(*window.disturbances, *((Disturbance.RECYCLED,) if recycled else ())),
        per_cpu=by_target(before.requests, after.requests, observer.last_online),
    )


def _with_waits(window: Window, before: Sample, after: Sample, observer: ContentionObserver) -> Window:
    if before.contention is None or after.contention is None:
        return window
    buckets = zip(before.contention.histogram, after.contention.histogram, strict=True)
    lost, stackless = unseen(before.contention, after.contention)
    return replace(
        window,
        waits=observer.waits(before.contention, after.contention),
        wait_histogram_ns=tuple(late - early for early, late in buckets),
        lost_events=window.lost_events + lost,
        lost_waits=lost,
        stackless_events=window.stackless_events + stackless,
    )


def requests_lost(before: Sample, after: Sample) -> tuple[int, int]:
    """(requests that the IPI probe could not count, requests counted without a stack) between two samples.

    Zeros without a probe.
    """
    if before.requests is None or after.requests is None:
        return 0, 0
    return uncounted(before.requests, after.requests), unseen(before.requests, after.requests)[1]


def uncounted(before: RequestSample, after: RequestSample) -> int:
    """Requests between two samples that found a map full, or of which it is not known how many CPUs they went to.

    Any of them may be a broadcast's. Requests during which the program was already running on that CPU are left out:
    they come from an interrupt, and no interrupt sends to many CPUs.
    """
    health = _risen(before.health, after.health)
    return health.lost + health.unknown_kind


def unseen(before: RequestSample | ContentionSample, after: RequestSample | ContentionSample) -> tuple[int, int]:
    """(events lost, events counted without a stack) between two samples of one probe.

    Lost events are those that found a map full, requests of unknown kind (they are missing from the calls and
    broadcasts), waits whose begin or end was missed, and requests during which the program was already running on that
    CPU. Such misses of the contention program are no loss: contention in an interrupt, or in the program's own maps, is
    that of a spinlock, never of a mutex. A mutex's would show as a wait without a begin.
    """
    health = _risen(before.health, after.health)
    lost = health.lost + health.unknown_kind + health.unmatched
    if isinstance(before, RequestSample) and isinstance(after, RequestSample):
        lost += after.recursion_misses - before.recursion_misses
    return lost, health.stackless


def _risen(before: Health, after: Health) -> Health:
    return Health(*(late - early for early, late in zip(before, after, strict=True)))
