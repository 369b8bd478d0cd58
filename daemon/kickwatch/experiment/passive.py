"""Passive mode: no experiment; the bill of the containers that other programs start.

The probes run as usual, and the engine is asked how many containers were started. The cost of a container is then an
average over a time in which much else happened, so there is no verdict: cells of the creation path are reported as they
are.
"""

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from kickwatch.configuration.types import Config
from kickwatch.detect.bill import share, window_rows
from kickwatch.detect.figures import creation_broadcasts, longest_wait_ns, merge_windows, milliseconds, total_waits
from kickwatch.errors import EngineError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.model import Cell, Window, WindowKind
from kickwatch.workload.engine_choice import choose_passive_engine

if TYPE_CHECKING:
    from kickwatch.observe.observatory import Sample
    from kickwatch.workload.engine import Engine

_CUT_EVERY_S = 60.0
_COUNT_EVERY_S = 10  # an engine keeps its newest 256 events: enough for about four containers per second
_MOST_CELLS = 12


class Passive:
    """The bill so far. `look` extends it; `summary_if_due` returns it and resets it."""

    def __init__(self, config: Config, armed: ArmedObservers, step: Callable[[str], None]) -> None:
        """`step` gets a text about the progress."""
        self._config = config
        self._armed = armed
        self._observatory = armed.observatory
        self._step = step
        self._cut_every_s = min(_CUT_EVERY_S, config.service.summary_period_s)
        self._before: Sample | None = None
        self._windows: Window | None = None
        self._waits_watched = True  # in every window so far
        self._asked_until = int(time.time())
        self._containers: int | None = 0
        self._engine: Engine | None = None
        self._name = ""
        self._why_unknown = ""

    async def look(self) -> None:
        """Count the containers started since the last look. Once a minute, add what the probes saw to the bill."""
        await self._count()
        if self._before is None:
            self._before = await self._observatory.sample()
        elif time.monotonic_ns() - self._before.at_ns >= self._cut_every_s * 1e9:
            await self._cut()
        self._step(f"passive: {self._count_text()} started by others")

    def summary_if_due(self, period_s: float) -> dict[str, Any] | None:
        """The fields of `kickwatch.summary`, once the bill covers `period_s`; None before. Resets the bill.

        A figure is None if it was not observed during the whole time.
        """
        window, containers, watched = self._windows, self._containers, self._waits_watched
        if window is None or window.duration_ns < period_s * 1e9:
            return None
        self._windows, self._containers, self._waits_watched = None, 0, True
        waits, wait_ns = total_waits(window.waits) if watched else (None, None)
        seen = self._observatory.requests is not None and self._armed.control.passed
        return {
            "mode": WindowKind.PASSIVE.value,
            "engine": self._name,
            "period_s": round(window.duration_ns / 1e9, 1),
            "containers": containers,
            "bill": _bill(window.cells, containers) if seen else None,
            "creation_path_broadcasts_per_container": (
                share(creation_broadcasts(window.cells), containers) if seen else None
            ),
            "slab_mutex_waits": waits,
            "slab_mutex_wait_ms": milliseconds(wait_ns),
            "slab_mutex_longest_ms": milliseconds(longest_wait_ns(window.waits) if watched else None),
        }

    async def _cut(self) -> None:
        """Add a window to the bill. Housekeeping falls between two windows."""
        if self._before is None:
            return
        window = self._observatory.window(WindowKind.PASSIVE, self._before, await self._observatory.sample())
        self._windows = window if self._windows is None else merge_windows([self._windows, window])
        self._waits_watched &= self._observatory.waits_known  # asked before the address may be learned, below
        await self._observatory.between_windows()
        self._before = await self._observatory.sample()

    async def _count(self) -> None:
        """Ask the engine now and then. If it does not answer, the number is unknown, not zero."""
        until = int(time.time())
        if until - self._asked_until < _COUNT_EVERY_S:
            return
        try:
            if self._engine is None:
                chosen = await choose_passive_engine(self._config)
                self._engine, self._name = chosen.engine, str(chosen.info)
            started = await self._engine.count_started(self._asked_until, until)
        except EngineError as error:
            await self.aclose()
            self._containers, self._why_unknown = None, error.what
        else:
            if started is None:
                self._containers, self._why_unknown = (
                    None,
                    f"{self._name} does not report other containers",
                )
            elif self._containers is not None:
                self._containers += started
        self._asked_until = until

    async def aclose(self) -> None:
        """Close the connection to the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _count_text(self) -> str:
        if self._containers is None:
            return f"an unknown number of containers ({self._why_unknown})"
        return f"{self._containers} containers"


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
