"""The bill of an hour: the sum over its trials, as the fields of `kickwatch.summary`. Pure, in bounded memory.

Requests are those above the rate of the quiet windows. Broadcasts and waits are as counted, since their stacks prove
where they come from. A void trial proves nothing: only its reasons are counted. A trial whose probe did not attribute
requests adds no cells. Requests to isolated CPUs are those of the trials that counted them.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kickwatch.detect.bill import BillRow, share, trial_rows
from kickwatch.detect.figures import (
    counted,
    known_creation_broadcasts,
    known_waits,
    longest_wait_ns,
    milliseconds,
    total_waits,
)
from kickwatch.detect.state import TrialOutcome
from kickwatch.detect.verdict import void_reasons
from kickwatch.model import Cell, Container, Trial, Verdict
from kickwatch.outlets.excess import above_quiet_by
from kickwatch.outlets.isolation import isolated_known

MOST_CELLS = 12
_STEPS = ("sandbox", "create", "start", "wait", "remove")
BUCKETS_PER_OCTAVE = 16  # a percentile is off by at most 2.2 %
SHORTEST_MS, _LONGEST_MS = 2.0**-10, 2.0**22  # a microsecond, an hour: at most 512 buckets

Key = tuple[str, str, str]  # reason, origin, path


@dataclass
class Percentiles:
    """Durations in logarithmic buckets."""

    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, duration_ms: float) -> None:
        """Add one duration."""
        bounded_ms = min(max(duration_ms, SHORTEST_MS), _LONGEST_MS)
        self.buckets[round(math.log2(bounded_ms) * BUCKETS_PER_OCTAVE)] += 1

    def at(self, percent: float) -> float | None:
        """The duration in ms that `percent` of the durations do not exceed. None if there are none."""
        wanted = math.ceil(self.buckets.total() * percent / 100)
        for bucket in sorted(self.buckets):
            wanted -= self.buckets[bucket]
            if wanted <= 0:
                return float(f"{2.0 ** (bucket / BUCKETS_PER_OCTAVE):.3g}")
        return None


@dataclass
class _Waits:
    waits: int = 0
    wait_ns: int = 0
    longest_ns: int | None = 0  # None: there were waits, but the longest is unknown


@dataclass
class _Totals:
    """Totals, reset after each summary."""

    trials: int = 0
    void: Counter[str] = field(default_factory=Counter)
    containers: int = 0
    failed: int = 0
    attributed: int = 0  # containers of trials whose probe attributed
    creation_broadcasts: int = 0
    rows: dict[Key, BillRow] = field(default_factory=dict)
    split: int = 0  # containers of trials that counted requests to isolated CPUs
    isolated: dict[Key, float] = field(default_factory=dict)  # these requests, above quiet
    waits: _Waits | None = None
    latencies: dict[str, Percentiles] = field(default_factory=lambda: {step: Percentiles() for step in _STEPS})
    paused_s: float = 0.0


class Bill:
    """The sum of the trials since the last summary. The verdict and the node are kept, since they still hold."""

    def __init__(self) -> None:
        """No trial yet: the verdict is unknown."""
        self._totals = _Totals()
        self._verdict = Verdict.UNKNOWN
        self._node: dict[str, Any] = {}

    def add(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Add a trial and its outcome."""
        totals = self._totals
        self._node = {
            "kernel": trial.node.kernel,
            "engine": trial.node.engine,
            "cpus_online": trial.node.cpus_online,
        }
        containers = counted(trial)
        totals.failed += len(trial.containers) - len(containers)
        void = [each.value for each in trial.disturbances] or void_reasons([trial])
        if void:
            totals.void.update(void)
            return
        self._verdict = outcome.verdict
        totals.trials += 1
        totals.containers += len(containers)
        _add_latencies(totals.latencies, containers)
        if (broadcasts := known_creation_broadcasts(trial)) is not None:
            totals.attributed += len(containers)
            totals.creation_broadcasts += broadcasts
            for key, row in trial_rows(trial, _key).items():
                totals.rows[key] = totals.rows.get(key, BillRow()).plus(row)
        if isolated_known(trial):
            totals.split += len(containers)
            for key, above in above_quiet_by(trial, _key, lambda cell: cell.isolated or 0).items():
                totals.isolated[key] = totals.isolated.get(key, 0.0) + above
        if known_waits(trial) is not None:
            totals.waits = _added(totals.waits or _Waits(), trial)

    def paused(self, seconds: float) -> None:
        """Add seconds in which the guard blocked trials."""
        self._totals.paused_s += seconds

    def take(self, period_s: float) -> dict[str, Any]:
        """The fields of `kickwatch.summary`. Resets the bill. `period_s`: the time since the last summary.

        A field is None if no trial could measure it. `kernel`, `engine` and `cpus_online` are missing before the first
        trial.
        """
        totals, self._totals = self._totals, _Totals()
        waits = totals.waits
        return {
            "mode": "experiment",
            "verdict": self._verdict.value,
            "period_s": round(period_s, 1),
            "trials": totals.trials,
            "containers": totals.containers,
            "failed": totals.failed,
            "creation_path_broadcasts_per_container": share(totals.creation_broadcasts, totals.attributed),
            "slab_mutex_waits": waits.waits if waits else None,
            "slab_mutex_wait_ms": milliseconds(waits.wait_ns) if waits else None,
            "slab_mutex_longest_ms": milliseconds(waits.longest_ns) if waits else None,
            "paused_s": round(totals.paused_s, 1),
            "void": dict(totals.void),
            "bill": _top(totals) if totals.attributed else None,
            "latency_ms": {
                step: {"p50": durations.at(50), "p99": durations.at(99)}
                for step, durations in totals.latencies.items()
                if step != "sandbox" or durations.buckets  # only engines with pods have that step
            },
        } | self._node


def _add_latencies(latencies: dict[str, Percentiles], containers: Iterable[Container]) -> None:
    for container in containers:
        for step in _STEPS:
            took_ms = getattr(container, f"{step}_ms")
            if took_ms is not None:
                latencies[step].add(took_ms)


def _key(cell: Cell) -> Key:
    return cell.reason, cell.origin.value, cell.path.value


def _top(totals: _Totals) -> list[dict[str, Any]]:
    """At most MOST_CELLS rows: by broadcasts, then by requests, then by name."""
    billed = ((key, row) for key, row in totals.rows.items() if row.with_containers)
    ordered = sorted(billed, key=lambda item: (-item[1].broadcasts, -item[1].above_quiet, item[0]))
    return [
        {
            "reason": key[0],
            "origin": key[1],
            "path": key[2],
            "requests_per_container": share(row.above_quiet, totals.attributed),
            "broadcasts_per_container": share(row.broadcasts, totals.attributed),
            **_isolated(totals, key),
        }
        for key, row in ordered[:MOST_CELLS]
    ]


def _isolated(totals: _Totals, key: Key) -> dict[str, Any]:
    """One more key where CPUs are isolated."""
    if not totals.split:
        return {}
    return {"isolated_per_container": share(totals.isolated.get(key, 0.0), totals.split)}


def _added(waits: _Waits, trial: Trial) -> _Waits:
    count, wait_ns = total_waits(trial.churn.waits)
    longest = (waits.longest_ns, longest_wait_ns(trial.churn.waits))
    longest_ns = max([each for each in longest if each], default=None if None in longest else 0)
    return _Waits(waits.waits + count, waits.wait_ns + wait_ns, longest_ns)
