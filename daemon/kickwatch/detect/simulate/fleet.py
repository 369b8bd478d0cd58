"""A kernel release on many nodes: how soon it is a page, how often a healthy one is, and what Prometheus receives.

The rules are those of deploy/prometheus/rules.yml, group kickwatch-fleet: the mean over nodes and over four streams of
e-processes that begin with the release.
"""

from collections.abc import Iterator, Sequence
from math import isfinite
from random import Random
from statistics import median

import msgspec

from kickwatch.detect.detectors import shares_of
from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import EpochEProcess
from kickwatch.detect.rates import Pace
from kickwatch.detect.simulate.bounds import quantile
from kickwatch.detect.simulate.laws import draws, poisson
from kickwatch.detect.streams import CREATION_PATH, StreamName
from kickwatch.detect.wager import Null, Wager

PAGE_STREAMS = (StreamName.ATTRIBUTED, StreamName.BURST, StreamName.SIGNATURE, StreamName.CANARY)
PAGE_AT = 1e6  # the mean over nodes and over the four streams
SERIES_AT_MOST = 320  # of a node, as a test of the metrics asserts
SERIES_OF_A_SCRAPE = 5  # up and scrape_*, which Prometheus adds for each target
EPOCHS_A_YEAR = 365.25 / 90
LONGEST_ROUNDS = 2000

_WAGER = Wager(Null(CREATION_PATH.mean, CREATION_PATH.clip))
_PROCESS = EpochEProcess(_WAGER)


class Rollout(msgspec.Struct, frozen=True):
    """A release that broadcasts, on `nodes` nodes. Each runs a trial of `containers` every `period_s`."""

    nodes: int
    containers: int
    period_s: float
    broadcasts_per_container: float

    @property
    def containers_per_hour(self) -> float:
        """Of each node."""
        return self.containers * 3600.0 / self.period_s


class Delay(msgspec.Struct, frozen=True):
    """Trials of each node until the release is a page, and until a node alone alarms; inf: not by LONGEST_ROUNDS."""

    rollout: Rollout
    runs: int
    page_median: float
    page_p95: float
    node_median: float

    def hours(self, trials: float) -> float:
        """The time of that many trials; the first begins at the start of the daemon."""
        return trials * self.rollout.period_s / 3600.0


class FalsePages(msgspec.Struct, frozen=True):
    """Bounds for healthy fleets, in alerts a year."""

    nodes: int
    releases: int
    pages_of_releases: float
    pages_of_the_fleet: float
    alarms_of_nodes: float


class Load(msgspec.Struct, frozen=True):
    """What a Prometheus receives from a fleet."""

    nodes: int
    interval_s: int
    series: int
    samples_per_s: float
    gigabytes_a_day: float


def pooled_evidence(rollout: Rollout, random: Random) -> Iterator[tuple[float, list[bool]]]:
    """After each round of trials: the release's pooled evidence, and which nodes have an alarm of their own by then.

    The fault shows in `attributed` only; the other three streams observe zeros.
    """
    source = draws(poisson(rollout.broadcasts_per_container), random)
    detector = EDetector(_WAGER, _own_threshold(rollout))
    pooled, own = [_PROCESS.start()] * rollout.nodes, [detector.start()] * rollout.nodes
    alarmed, silent = [False] * rollout.nodes, _PROCESS.start()
    while True:
        silent = _PROCESS.step(silent, 0.0)
        total = 0.0
        for node in range(rollout.nodes):
            xs = tuple(next(source) for _ in range(rollout.containers))
            pooled[node] = _PROCESS.step_trial(pooled[node], xs)
            total += _PROCESS.published(pooled[node])
            if not alarmed[node]:
                own[node], alarmed[node] = detector.scan(own[node], xs)
        mean = total / rollout.nodes
        yield (mean + (len(PAGE_STREAMS) - 1) * _PROCESS.published(silent)) / len(PAGE_STREAMS), alarmed


def _own_threshold(rollout: Rollout) -> float:
    shares = shares_of(Pace(rollout.containers, rollout.period_s))
    return next(share.threshold for share in shares if share.name == StreamName.ATTRIBUTED)


def delay(rollout: Rollout, runs: int, seed: int) -> Delay:
    """Measured over that many runs."""
    pages, nodes = list[float](), list[float]()
    for run in range(runs):
        page, own = _one_run(rollout, Random(f"{seed} {run}"))  # noqa: S311 -- a simulation
        pages.append(page)
        nodes += own
    return Delay(rollout, runs, median(pages), quantile(sorted(pages), 0.95), median(nodes))


def _one_run(rollout: Rollout, random: Random) -> tuple[float, list[float]]:
    """Rounds to the page, and to each node's own alarm. It ends once there is the page and half of the nodes alarm."""
    page, own = float("inf"), [float("inf")] * rollout.nodes
    for number, (evidence, alarmed) in enumerate(pooled_evidence(rollout, random), 1):
        if evidence >= PAGE_AT and not isfinite(page):
            page = number
        own = [number if late and known == float("inf") else known for known, late in zip(own, alarmed, strict=True)]
        if number >= LONGEST_ROUNDS or (isfinite(page) and 2 * sum(alarmed) > rollout.nodes):
            break
    return page, own


def false_pages(nodes: int, releases: int, draws_per_node: float = 2.0) -> FalsePages:
    """The bounds of the rules' proof. `releases`: how many a year; each is seen in at most two epochs.

    `draws_per_node`: how often a node begins again in an epoch, by a new kernel or without its state.
    """
    seen = max(1, int(nodes * draws_per_node))
    others = len(StreamName)
    return FalsePages(
        nodes=nodes,
        releases=releases,
        pages_of_releases=2.0 * releases * harmonic(seen) / PAGE_AT,
        pages_of_the_fleet=EPOCHS_A_YEAR * others * harmonic(seen) / PAGE_AT,
        alarms_of_nodes=nodes / 1000.0,
    )


def harmonic(n: int) -> float:
    """1 + 1/2 + ... + 1/n."""
    return sum(1.0 / k for k in range(n, 0, -1))


def load(nodes: int, interval_s: int, bytes_per_sample: float = 2.0) -> Load:
    """At most, with every series that a node may have."""
    series = nodes * (SERIES_AT_MOST + SERIES_OF_A_SCRAPE)
    rate = series / interval_s
    return Load(nodes, interval_s, series, rate, rate * 86_400 * bytes_per_sample / 1e9)


def rollouts(sizes: Sequence[int] = (1, 10, 100)) -> Iterator[Rollout]:
    """Canary groups of these sizes, for three budgets and three strengths of the fault."""
    for containers, period_s in ((23, 1980.0), (6, 3600.0), (1, 3600.0)):
        for broadcasts in (1.0, 0.25, 0.1):
            for nodes in sizes:
                yield Rollout(nodes, containers, period_s, broadcasts)
