"""Passive mode: no experiment; the containers that other programs start, counted by the kernel's tracepoints.

No engine is asked and no wall clock is read. The bill of a container has what the tasks sent that make it or run in
its cgroup, and the creation path of any task; the rest is listed beside it. It is a lower bound: what a worker or an
engine's daemon does for a container is beside.

A record of what was seen steps the streams that need no comparison with quiet windows (`detect.passive`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from kickwatch.configuration.types import Config
from kickwatch.detect.bill import share, window_rows
from kickwatch.detect.figures import (
    creation_broadcasts,
    longest_wait_ns,
    loss_hides,
    merge_cells,
    merge_windows,
    milliseconds,
    total_waits,
)
from kickwatch.detect.passive import ALARMING_RECORD_S, LEAST_LOOK_S, RECORD_S, creation_path, divided
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.passive_count import ContainerCount, Counted
from kickwatch.experiment.passive_record import passive_record
from kickwatch.model import Cell, Look, Trial, Window, WindowKind
from kickwatch.observe.windows import Sample, uncounted
from kickwatch.workload.names import OWN_CGROUPS

LOWER_BOUND = (
    "a lower bound: what tasks of containers sent, and the creation path; workers and engines' daemons are beside"
)
_CUT_EVERY_S = 60.0
_DRAIN_EVERY_S = 1.0
_MOST_CELLS = 12


class _Observed(NamedTuple):
    """What was observed all the time: `members`: which of the broadcasts were sent by tasks of containers."""

    waits: bool
    broadcasts: bool
    members: bool
    slab_mutex: bool
    senders: bool

    def also(self, other: "_Observed") -> "_Observed":
        """What both know."""
        return _Observed(*(one and two for one, two in zip(self, other, strict=True)))


@dataclass
class _Span:
    """Windows added up, with the cells of the containers and those beside them."""

    window: Window
    billed: tuple[Cell, ...]
    beside: tuple[Cell, ...]
    known: _Observed
    looks: list[Look] = field(default_factory=list)

    def add(self, other: "_Span") -> None:
        self.window = merge_windows([self.window, other.window])
        self.billed = merge_cells((*self.billed, *other.billed))
        self.beside = merge_cells((*self.beside, *other.beside))
        self.known = self.known.also(other.known)
        self.looks += other.looks


class Passive:
    """The bill so far. `look` extends it; `summary_if_due` returns it and resets it."""

    def __init__(self, config: Config, armed: ArmedObservers, step: Callable[[str], None]) -> None:
        """`step` gets a text about the progress."""
        self._armed = armed
        self._observatory = armed.observatory
        self._step = step
        self._cut_every_s = min(_CUT_EVERY_S, config.service.summary_period_s)
        self._before: Sample | None = None
        self._count = ContainerCount(self._observatory)
        self._period: _Span | None = None
        self._period_count = self._count.now()
        self._record: _Span | None = None
        self._looked = self._count.now()
        self._recorded_s = self._kept_house_s = time.monotonic()
        self._drain: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Count the containers started since the last look. Once there were some, add what the probes saw.

        Raises ObserveError if the kernel refuses a reading.
        """
        before = self._before
        if before is None:
            await self._observatory.arm_passive(OWN_CGROUPS)
            self._period_count = self._looked = await self._count.begin()
            self._before = await self._observatory.sample()
        self._keep_draining()
        await self._count.drain()
        if before is not None and self._due(before):
            await self._cut(before)
        self._step(f"passive: {self._count_text()} started by others")

    def _due(self, before: Sample) -> bool:
        elapsed_s = (time.monotonic_ns() - before.at_ns) / 1e9
        started = self._count.now().containers > self._looked.containers
        return elapsed_s >= self._cut_every_s or (started and elapsed_s >= LEAST_LOOK_S)

    def counted(self) -> tuple[Counted, str]:
        """(the containers since the probe was armed, why some may be missing: empty if none is)."""
        counted = self._count.now()
        return counted, self._count.why_unknown(counted)

    def record_if_due(self) -> Trial | None:
        """What was seen of containers since the record before: once a minute, or soon after a broadcast."""
        record, now_s = self._record, time.monotonic()
        if record is None or not record.looks:
            return None
        alarming = any(look.own or look.others for look in record.looks)
        if now_s - self._recorded_s < (ALARMING_RECORD_S if alarming else RECORD_S):
            return None
        self._record, self._recorded_s = None, now_s
        return passive_record(
            self._armed,
            record.window,
            tuple(record.looks),
            slab_mutex_known=record.known.slab_mutex,
            senders_known=record.known.senders,
        )

    def summary_if_due(self, period_s: float) -> dict[str, Any] | None:
        """The fields of `kickwatch.summary`, once the bill covers `period_s`; None before. Resets the bill.

        A figure is None if it was not observed during the whole time.
        """
        period = self._period
        if period is None or period.window.duration_ns < period_s * 1e9:
            return None
        now = self._count.now()
        counted, self._period, self._period_count = now.since(self._period_count), None, now
        containers, window = counted.known, period.window
        watched = period.known.waits and (window.waits or not window.lost_waits)
        waits, wait_ns = total_waits(window.waits) if watched else (None, None)
        seen, broadcasts = period.known.broadcasts, creation_broadcasts(period.billed)
        hidden = not broadcasts and loss_hides(0, window.lost_requests or 0, containers or 0)
        return {
            "mode": WindowKind.PASSIVE.value,
            "engine": ", ".join(sorted(counted.by_engine)),
            "period_s": round(window.duration_ns / 1e9, 1),
            "containers": containers,
            **self._count_fields(counted),
            "bill": _bill(period.billed, containers) if seen and period.known.members else None,
            "beside": _bill(period.beside, containers) if seen else None,
            "bill_is": LOWER_BOUND,
            "creation_path_broadcasts_per_container": (share(broadcasts, containers) if seen and not hidden else None),
            "slab_mutex_waits": waits,
            "slab_mutex_wait_ms": milliseconds(wait_ns),
            "slab_mutex_longest_ms": milliseconds(longest_wait_ns(window.waits) if watched else None),
        }

    def _count_fields(self, counted: Counted) -> dict[str, Any]:
        return {
            "containers_at_least": counted.containers if self._count.armed else None,
            "containers_by_engine": dict(sorted(counted.by_engine.items())),
            "containers_unknown": self._count.why_unknown(counted),
            "cgroups_made": counted.made if self._count.armed else None,
            "cgroup_events_lost": counted.lost if self._count.armed else None,
            "container_tasks_lost": counted.strangers if self._count.armed else None,
        }

    @property
    def _seen(self) -> bool:
        return self._observatory.requests is not None and self._armed.control.passed

    async def _cut(self, before: Sample) -> None:
        """Add a window to the bill. Housekeeping falls between two windows."""
        after = await self._observatory.sample()
        now = self._count.now()
        span = self._span(before, after, now.since(self._looked))
        self._looked = now
        self._period = _added(self._period, span)
        self._record = _added(self._record, span) if span.looks or self._record is not None else None
        if time.monotonic() - self._kept_house_s >= self._cut_every_s or not span.looks:
            await self._observatory.between_windows()
            self._kept_house_s, after = time.monotonic(), await self._observatory.sample()
        self._before = after

    def _span(self, before: Sample, after: Sample, counted: Counted) -> _Span:
        observatory = self._observatory
        window = observatory.window(WindowKind.PASSIVE, before, after)
        members, apart, lost = tuple[Cell, ...](), False, counted.containers
        if observatory.members is not None and before.members is not None and after.members is not None:
            members, apart = observatory.members.cells(before.members, after.members, patches_count=False), True
            lost = uncounted(before.members, after.members)
        known = _Observed(
            observatory.waits_known, self._seen, apart, observatory.slab_mutex_known, observatory.senders_known
        )
        looks = [look_of(counted, window.cells, members, lost)] if counted.containers and self._seen else []
        return _Span(window, *divided(window.cells, members), known, looks)

    def _keep_draining(self) -> None:
        """Take events once a second, however seldom it is looked: the probe has room for some thousand."""
        if self._drain is not None and self._drain.done():
            self._drain.result()  # raises what ended it
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._count.keep_draining(_DRAIN_EVERY_S))

    async def aclose(self) -> None:
        """End the task that takes events. The probes stay armed."""
        if self._drain is not None:
            self._drain.cancel()
            with suppress(asyncio.CancelledError):
                await self._drain
            self._drain = None

    def _count_text(self) -> str:
        counted = self._count.now()
        what, _ = self._count.cause(counted)  # the remedy is in the log and the status file
        if what:
            least = f"at least {counted.containers}" if self._count.armed else "an unknown number of"
            return f"{least} containers ({what})"
        return f"{counted.containers} containers"


def look_of(counted: Counted, cells: Sequence[Cell], members: Sequence[Cell], lost: int = 0) -> Look:
    """What the streams observe of a span with containers. `lost`: requests of their tasks that were not counted."""
    every, own = creation_path(cells), creation_path(members)
    return Look(
        containers=counted.containers,
        cgroups=counted.made,
        own=own[0],
        others=max(0, every[0] - own[0]),
        own_kicks=own[1],
        other_kicks=max(0, every[1] - own[1]),
        uncounted=counted.lost + counted.pending + counted.inside,
        lost=counted.lost + counted.strangers + lost,
    )


def _added(sum_: _Span | None, span: _Span) -> _Span:
    if sum_ is None:
        return replace(span, looks=list(span.looks))
    sum_.add(span)
    return sum_


def _bill(cells: Iterable[Cell], containers: int | None) -> list[dict[str, Any]]:
    rows = window_rows(cells, lambda cell: cell.identity)
    return [
        {
            "reason": reason,
            "origin": origin.value,
            "path": path.value,
            "requests": row.requests,
            "broadcasts": row.broadcasts,
            "requests_per_container": share(row.requests, containers),
            "broadcasts_per_container": share(row.broadcasts, containers),
        }
        for (reason, _, origin, path), row in islice(rows.items(), _MOST_CELLS)
    ]
