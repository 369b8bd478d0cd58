"""Totals over the trials of one kernel release: what the report's tables are made of. Pure, in bounded memory.

Figures follow the same rules as the bill of an hour (`outlets.bill`): requests are those above the quiet windows' rate,
broadcasts and waits are as counted, a void trial proves nothing, and a trial whose probe did not attribute requests
adds no cells.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from math import log2

from kickwatch.detect.figures import (
    churn_by_quiet,
    known_creation_broadcasts,
    known_waits,
    longest_wait_ns,
    total_waits,
    under_slab_mutex_known,
)
from kickwatch.model import Cell, Container, HalfFigures, Origin, Path, Trial
from kickwatch.outlets.bill import BUCKETS_PER_OCTAVE, SHORTEST_MS, Percentiles
from kickwatch.outlets.excess import per_cpu_above_quiet

MOST_STACKS = 20_000  # of one kernel; requests of further stacks are counted without one
STEPS = ("create", "start", "wait", "remove")
SANDBOX = "sandbox"  # the step before them, of engines with pods
PAIR_FIGURES: dict[str, Callable[[HalfFigures], int | None]] = {
    "elsewhere": lambda half: half.elsewhere,
    "other_waits": lambda half: half.other_waits,
    "isolated": lambda half: half.isolated,
}
# Broadcasts in a container's life: the classes of the latency figures, each with its highest count.
CLASSES = {"0": 0, "1": 1, "2 to 4": 4, "5 to 9": 9, "10 to 29": 29, "30 or more": 1 << 62}
NOT_KNOWN = "not known"
_CLASS_OF: dict[int | None, str] = {
    None: NOT_KNOWN,
    **{n: next(name for name, top in CLASSES.items() if n <= top) for n in range(30)},
}
_HIGHEST = [*CLASSES][-1]
_LOWEST = round(log2(SHORTEST_MS) * BUCKETS_PER_OCTAVE)

CellKey = tuple[str, str, str, str, tuple[str, ...]]  # reason, func, origin, path, stack


@dataclass(slots=True)
class CellTotals:
    """What the cells of one key sent. `quiet`: requests of quiet windows, scaled to the churn windows' length."""

    requests: int = 0
    calls: int = 0
    broadcasts: int = 0
    under_slab_mutex: int = 0
    quiet: float = 0.0


@dataclass(slots=True)
class WaiterTotals:
    """Waits for slab_mutex. `longest_ns` is None if there were waits, but no record knows the longest."""

    waits: int = 0
    wait_ns: int = 0
    longest_ns: int | None = 0


@dataclass
class Tally:
    """The totals. `attributed`, `watched`: containers of the trials that could attribute requests, or see waits.

    `under_mutex_known`: whether every attributed trial knew `slab_mutex`. `cpu_containers`: containers of the trials
    that counted requests by CPU.
    """

    ipi_rung: str = ""  # of the last trial
    trials: int = 0
    void_trials: int = 0
    void: Counter[str] = field(default_factory=Counter)
    containers: int = 0
    failed: int = 0
    attributed: int = 0
    under_mutex_known: bool = True
    creation_broadcasts: int = 0
    hit_containers: int = 0  # containers with a creation-path broadcast of their own
    known_containers: int = 0  # containers of which that is known
    cells: dict[CellKey, CellTotals] = field(default_factory=dict)
    watched: int = 0
    waiters: dict[tuple[str, str, str], WaiterTotals] = field(default_factory=dict)  # waiter, holder, path
    churn_histogram: list[int] = field(default_factory=list)
    quiet_histogram: list[int] = field(default_factory=list)
    latencies: dict[tuple[str, str], Percentiles] = field(default_factory=dict)  # step, class of broadcasts
    per_cpu: list[float] = field(default_factory=list)
    cpu_containers: int = 0
    pairs: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in PAIR_FIGURES})
    outlasted: int = 0
    _by_stack: dict[tuple[str, tuple[str, ...]], tuple[Origin, Path, str, CellTotals]] = field(default_factory=dict)
    _by_class: dict[str, tuple[Counter[int], ...]] = field(default_factory=dict)  # the buckets of `latencies`

    def add(self, trial: Trial, counted: list[Container]) -> None:
        """Add a valid trial; `counted`: its containers that did not fail."""
        self.trials += 1
        self.ipi_rung = trial.observers.ipis.value
        self.containers += len(counted)
        self._add_lives(counted)
        if known_creation_broadcasts(trial) is not None:
            self.attributed += len(counted)
            self.under_mutex_known = self.under_mutex_known and under_slab_mutex_known(trial)
            self._add_cells(trial)
        if known_waits(trial) is not None:
            self.watched += len(counted)
            self._add_waits(trial)
        self._add_pairs(trial)
        per_cpu = per_cpu_above_quiet(trial) if trial.churn.per_cpu else None
        if per_cpu is not None:
            self.cpu_containers += len(counted)
            self.per_cpu = [a + b for a, b in zip_longest(self.per_cpu, per_cpu, fillvalue=0.0)]

    def _add_cells(self, trial: Trial) -> None:
        """The hot loop: a few dozen cells a trial."""
        for cell in trial.churn.cells:
            entry = self._entry(cell)
            entry.requests += cell.requests
            entry.calls += cell.calls
            entry.broadcasts += cell.broadcasts
            entry.under_slab_mutex += cell.under_slab_mutex
            if cell.broadcasts and cell.on_creation_path:
                self.creation_broadcasts += cell.broadcasts
        weight = churn_by_quiet(trial)
        for cell in trial.quiet.cells:
            self._entry(cell).quiet += weight * cell.requests

    def _entry(self, cell: Cell) -> CellTotals:
        """Where a cell is added. Nearly always func and stack have one origin and path; enums are slow as keys."""
        known = self._by_stack.get((cell.func, cell.stack))
        if known is not None and known[0] is cell.origin and known[1] is cell.path and known[2] == cell.reason:
            return known[3]
        stack = cell.stack if len(self.cells) < MOST_STACKS else ()
        key = (cell.reason, cell.func, cell.origin.value, cell.path.value, stack)
        entry = self.cells.setdefault(key, CellTotals())
        if known is None and len(self._by_stack) < MOST_STACKS:
            self._by_stack[cell.func, cell.stack] = (cell.origin, cell.path, cell.reason, entry)
        return entry

    def _add_waits(self, trial: Trial) -> None:
        for wait in trial.churn.waits:
            entry = self.waiters.setdefault((wait.waiter, wait.holder, wait.path.value), WaiterTotals())
            count, wait_ns = total_waits([wait])
            entry.waits, entry.wait_ns = entry.waits + count, entry.wait_ns + wait_ns
            longest = longest_wait_ns([wait])
            if longest is None:
                entry.longest_ns = entry.longest_ns or None
            else:
                entry.longest_ns = max(entry.longest_ns or 0, longest)
        self.churn_histogram = added(self.churn_histogram, trial.churn.wait_histogram_ns)
        self.quiet_histogram = added(self.quiet_histogram, trial.quiet.wait_histogram_ns)

    def _add_lives(self, counted: list[Container]) -> None:
        """A hot loop: four durations of every container."""
        for life in counted:
            own = life.creation_path_broadcasts
            if own is not None:
                self.known_containers += 1
                self.hit_containers += own > 0
            of = _CLASS_OF.get(own, _HIGHEST)
            four = self._by_class.get(of) or self._new_class(of)
            for buckets, took_ms in zip(
                four, (life.create_ms, life.start_ms, life.wait_ms, life.remove_ms), strict=True
            ):
                if took_ms > SHORTEST_MS:
                    bucket = round(log2(took_ms) * BUCKETS_PER_OCTAVE)
                    buckets[bucket] = buckets.get(bucket, 0) + 1
                else:
                    buckets[_LOWEST] = buckets.get(_LOWEST, 0) + 1
            if life.sandbox_ms is not None:
                self.latencies.setdefault((SANDBOX, of), Percentiles()).add(life.sandbox_ms)

    def _new_class(self, of: str) -> tuple[Counter[int], ...]:
        four = tuple(self.latencies.setdefault((step, of), Percentiles()).buckets for step in STEPS)
        self._by_class[of] = four
        return four

    def _add_pairs(self, trial: Trial) -> None:
        for pair in trial.pairs:
            self.outlasted += pair.outlasted
            for name, figure in PAIR_FIGURES.items():
                churn, quiet = figure(pair.churn), figure(pair.quiet)
                if churn is not None and quiet is not None:
                    more = (churn > quiet) - (churn < quiet)
                    of = "losses" if more < 0 else "wins" if more and not pair.outlasted else "ties"
                    self.pairs[name][of] += 1


def added(one: list[int], other: tuple[int, ...]) -> list[int]:
    """Two histograms added up."""
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)] if other else one
