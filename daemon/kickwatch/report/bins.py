"""The history over time: at most a few hundred spans of consecutive trials, however many trials there are. Pure.

A bin starts as one trial. Whenever there are too many, neighbours are merged two by two, and the bins to come are twice
as wide. Bins of different segments (another kernel release, engine or boot) are merged only if nothing else is left.
"""

from dataclasses import dataclass, field
from itertools import zip_longest

from kickwatch.detect.figures import churn_by_quiet, known_creation_broadcasts, known_waits, total_waits
from kickwatch.model import Container, Trial
from kickwatch.outlets.excess import per_cpu_above_quiet

MOST_BINS = 200


@dataclass(slots=True)
class Bin:
    """Consecutive trials. Requests are above the quiet windows' rate; churn and quiet figures are as counted.

    `evidence`: the highest evidence of each stream among the moments at which it was read.
    """

    segment: int
    kernel: str
    first_unix_s: float
    last_unix_s: float
    verdict: str = "unknown"
    trials: int = 0
    void: int = 0
    containers: int = 0
    attributed: int = 0
    creation_broadcasts: int = 0
    other_broadcasts: int = 0
    requests: dict[str, float] = field(default_factory=dict)
    churn_requests: int = 0
    churn_ns: int = 0
    quiet_requests: int = 0
    quiet_ns: int = 0
    watched: int = 0
    waits: int = 0
    wait_ns: int = 0
    create_ms: float = 0.0
    start_ms: float = 0.0
    hit: int = 0
    cpu_containers: int = 0
    per_cpu: list[float] = field(default_factory=list)
    evidence: dict[str, float] = field(default_factory=dict)

    def add(self, trial: Trial, counted: list[Container]) -> None:
        """Add a valid trial."""
        self.containers += len(counted)
        for life in counted:
            self.create_ms += life.create_ms
            self.start_ms += life.start_ms
            self.hit += bool(life.creation_path_broadcasts)
        if known_creation_broadcasts(trial) is not None:
            self.attributed += len(counted)
            self._add_cells(trial)
        if known_waits(trial) is not None:
            self.watched += len(counted)
            count, wait_ns = total_waits(trial.churn.waits)
            self.waits, self.wait_ns = self.waits + count, self.wait_ns + wait_ns
        per_cpu = per_cpu_above_quiet(trial) if trial.churn.per_cpu else None
        if per_cpu is not None:
            self.cpu_containers += len(counted)
            self.per_cpu = [a + b for a, b in zip_longest(self.per_cpu, per_cpu, fillvalue=0.0)]

    def _add_cells(self, trial: Trial) -> None:
        requests, weight = self.requests, churn_by_quiet(trial)
        for cell in trial.churn.cells:
            requests[cell.reason] = requests.get(cell.reason, 0.0) + cell.requests
            self.churn_requests += cell.requests
            if cell.broadcasts and cell.on_creation_path:
                self.creation_broadcasts += cell.broadcasts
            else:
                self.other_broadcasts += cell.broadcasts
        for cell in trial.quiet.cells:
            requests[cell.reason] = requests.get(cell.reason, 0.0) - weight * cell.requests
            self.quiet_requests += cell.requests
        self.churn_ns += trial.churn.duration_ns
        self.quiet_ns += trial.quiet.duration_ns

    def absorb(self, later: "Bin") -> None:
        """Add the bin after this one."""
        self.last_unix_s = max(self.last_unix_s, later.last_unix_s)
        self.verdict = later.verdict
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for reason, above in later.requests.items():
            self.requests[reason] = self.requests.get(reason, 0.0) + above
        for stream, evidence in later.evidence.items():
            self.evidence[stream] = max(self.evidence.get(stream, 0.0), evidence)
        self.per_cpu = [a + b for a, b in zip_longest(self.per_cpu, later.per_cpu, fillvalue=0.0)]


_SUMS = (
    *("trials", "void", "containers", "attributed", "creation_broadcasts", "other_broadcasts", "churn_requests"),
    *("churn_ns", "quiet_requests", "quiet_ns", "watched", "waits", "wait_ns", "create_ms", "start_ms", "hit"),
    "cpu_containers",
)


class Bins:
    """All bins so far. `width`: trials that a new bin takes."""

    def __init__(self, most: int = MOST_BINS) -> None:
        """`most`: bins before they are merged; at least half as many remain where there are that many trials."""
        self.bins: list[Bin] = []
        self.width = 1
        self._most = most

    def current(self, segment: int, kernel: str, started_unix_s: float) -> Bin:
        """The bin of the next trial."""
        last = self.bins[-1] if self.bins else None
        if last is None or last.segment != segment or last.trials + last.void >= self.width:
            if len(self.bins) >= self._most:
                self._merge()
            last = Bin(segment, kernel, started_unix_s, started_unix_s)
            self.bins.append(last)
        return last

    def _merge(self) -> None:
        self.width *= 2
        self.bins = _paired(self.bins, across=False)
        if len(self.bins) > self._most // 4 * 3:  # hardly anything was merged: there are too many segments
            self.bins = _paired(self.bins, across=True)


def _paired(bins: list[Bin], *, across: bool) -> list[Bin]:
    """Neighbours merged two by two; `across` segments, too."""
    merged: list[Bin] = []
    taken = 2
    for one in bins:
        if taken < 2 and (across or merged[-1].segment == one.segment):
            merged[-1].absorb(one)
            taken += 1
        else:
            merged.append(one)
            taken = 1
    return merged
