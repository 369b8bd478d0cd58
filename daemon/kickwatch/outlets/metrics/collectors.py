"""Series that need more than a plain counter or gauge of prometheus_client: made at each scrape from stored figures."""

import os
from collections.abc import Iterable
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kickwatch.outlets.metrics import bill
from kickwatch.outlets.metrics.label_values import CONTAINERS, KINDS, OBSERVERS, PROBES, REQUEST_REASONS
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.rising import Rising

_NS = 1e9
_BUCKETS = range(40)  # the probe's: bucket i is [2**i, 2**(i+1)) ns
_FIRST_BOUND, _LAST_BOUND = 10, 34  # as powers of two: 1 us, 17 s
_CELL = ("reason", "origin", "path")
_TIME = "spent"


class ObserverCounters(Collector):
    """What the observers have counted, as counters that never fall."""

    def __init__(self) -> None:
        """All at zero."""
        self._lock = Lock()  # a scrape is formatted in a thread, while the event loop goes on
        self._interrupts: Rising[str] = Rising(KINDS, sources_return=True)
        self._uncounted = frozenset[str]()  # kinds that /proc/interrupts has no row of
        self._begun = False
        self._requests: Rising[str] = Rising(REQUEST_REASONS)
        self._waits: Rising[int] = Rising(_BUCKETS)
        self._wait_ns: Rising[str] = Rising([_TIME])
        self._lost: Rising[str] = Rising(PROBES)
        self._up = dict.fromkeys(OBSERVERS, False)
        self._waits_known = False

    def take(self, live: Live) -> None:
        """Take a reading."""
        with self._lock:
            self._take_interrupts(live)
            self._requests.feed(live.requests)
            self._waits.feed(live.waits)
            self._take_wait_time(live)
            self._lost.feed(live.lost)
            observers = (*OBSERVERS, *([CONTAINERS] if CONTAINERS in live.up else []))
            self._up = {observer: live.up.get(observer, False) for observer in observers}
            self._waits_known = live.waits_known

    def refused(self) -> None:
        """The kernel refused a reading: the counters keep their values, and no observer is up."""
        with self._lock:
            self._up = dict.fromkeys(self._up, False)
            self._waits_known = False

    def _take_interrupts(self, live: Live) -> None:
        """Count from the first reading on: the count since boot would be a jump."""
        if live.interrupts:
            self._uncounted = (self._uncounted if self._begun else frozenset(KINDS)) - live.interrupts.keys()
        if self._begun:
            self._interrupts.feed(live.interrupts)
        else:
            self._interrupts.skip(live.interrupts)
            self._begun = bool(live.interrupts)

    def _take_wait_time(self, live: Live) -> None:
        """Waits before the address of slab_mutex was known are in no bucket, so their time does not count either."""
        spent = {_TIME: live.wait_ns}
        if any(map(any, (sources.values() for sources in live.waits.values()))):
            self._wait_ns.feed(spent)
        else:
            self._wait_ns.skip(spent)

    def collect(self) -> Iterable[Metric]:
        """The families."""
        with self._lock:
            return [
                _counter(
                    "kickwatch_interrupts",
                    "Inter-processor interrupts received by all CPUs together since the first scrape, from"
                    " /proc/interrupts: CAL function calls (on x86 including TLB), TLB shootdowns, RES reschedules."
                    " A kind that the architecture does not count has no series (TLB on arm64).",
                    "kind",
                    self._interrupts,
                    self._uncounted,
                ),
                _counter(
                    "kickwatch_csd_requests",
                    "Call-function requests sent, by the function that the other CPU is asked to run; other: kickwatch"
                    " has no name for it. Requests in the last seconds before the probe's map is emptied can be"
                    ' missing. Unknown while kickwatch_observer_up{observer="csd"} is 0.',
                    "reason",
                    self._requests,
                ),
                self._waits_family(),
                _counter(
                    "kickwatch_observer_lost_events",
                    "Events that a probe saw but did not count. Unknown while kickwatch_observer_up of the probe is 0.",
                    "observer",
                    self._lost,
                ),
                _gauge(
                    "kickwatch_observer_up",
                    "1 if the observer works: csd for requests, contention for waits, interrupts for /proc/interrupts,"
                    " containers (only in passive mode) for containers that others start."
                    " All are 0 after a scrape in which the kernel refused a reading. While it is 0, its"
                    " counters stand still, and their values are unknown.",
                    "observer",
                    self._up,
                ),
                GaugeMetricFamily(
                    "kickwatch_slab_mutex_known",
                    "1 if waits for slab_mutex are counted: a probe is armed and knows the address of slab_mutex. While"
                    " 0, kickwatch_slab_mutex_wait_seconds is unknown, whatever it shows.",
                    value=float(self._waits_known),
                ),
            ]

    def _waits_family(self) -> Metric:
        waits, bounds, so_far = self._waits.totals, list[tuple[str, float]](), 0
        for bucket in _BUCKETS:
            so_far += waits[bucket]
            if _FIRST_BOUND <= bucket + 1 <= _LAST_BOUND:
                bounds.append((str(2 ** (bucket + 1) / _NS), float(so_far)))
        return HistogramMetricFamily(
            "kickwatch_slab_mutex_wait_seconds",
            "How long tasks waited for slab_mutex: all tasks, during trials and between them. Unknown while"
            " kickwatch_slab_mutex_known is 0.",
            buckets=[*bounds, ("+Inf", float(so_far))],
            sum_value=self._wait_ns.totals[_TIME] / _NS,
        )


class Billed(Collector):
    """The bill of the last trial that was not void. A cell that is no longer on the bill vanishes."""

    def __init__(self) -> None:
        """No bill yet."""
        self.bill: bill.Bill | None = None

    def collect(self) -> Iterable[Metric]:
        """Two families with the same cells, and whether the bill is known."""
        of = (
            "per container, in the last trial that was not void, all CPUs together, by cell. The"
            f" {bill.MOST_CELLS} most important cells are shown (first those of the creation path with broadcasts); the"
            " others are summed up in other. A cell vanishes when it is no longer shown. Unknown while"
            " kickwatch_bill_known is 0."
        )
        requests = GaugeMetricFamily(
            "kickwatch_bill_requests_per_container",
            f"Call-function requests above the rate without containers (noise can be negative), {of}",
            labels=_CELL,
        )
        broadcasts = GaugeMetricFamily(
            "kickwatch_bill_broadcasts_per_container", f"Broadcasts to all other CPUs {of}", labels=_CELL
        )
        for row, cost in (self.bill or bill.EMPTY).items():
            requests.add_metric(row, cost.requests)
            broadcasts.add_metric(row, cost.broadcasts)
        known = GaugeMetricFamily(
            "kickwatch_bill_known",
            "1 if the bill is known: in the last trial that was not void, at least one container succeeded, and a probe"
            " attributed requests.",
            value=float(self.bill is not None),
        )
        return [requests, broadcasts, known]


class ChoiceGauge(Collector):
    """One word of a closed set, or none: 1 for that word, 0 for the others."""

    def __init__(self, name: str, documentation: str, label: str, words: tuple[str, ...], chosen: str = "") -> None:
        """`chosen`: the initial word. A word that is not in `words` counts as none."""
        self._name, self._documentation, self._label, self._words = name, documentation, label, words
        self.chosen = chosen

    def collect(self) -> Iterable[Metric]:
        """One family."""
        chosen = self.chosen
        return [_gauge(self._name, self._documentation, self._label, {word: word == chosen for word in self._words})]


class KernelInfo(Collector):
    """The kernel release, as the label of one series that is always 1: other series are joined with it."""

    def __init__(self) -> None:
        """Not known yet."""
        self.release = ""

    def collect(self) -> Iterable[Metric]:
        """One family with one series: a release that is no longer the node's vanishes."""
        info = GaugeMetricFamily(
            "kickwatch_kernel_info",
            "Always 1. The kernel release (uname -r) of the latest valid trial, which the evidence, the e-processes and"
            " the bill are about; unknown before the first one.",
            labels=["release"],
        )
        info.add_metric([self.release or "unknown"], 1.0)
        return [info]


class Several(Collector):
    """Any number of words of a closed set: 1 for each word that holds, 0 for the others."""

    def __init__(self, name: str, documentation: str, label: str, words: tuple[str, ...]) -> None:
        """No word holds at the start."""
        self._name, self._documentation, self._label, self._words = name, documentation, label, words
        self.holding: frozenset[str] = frozenset()

    def collect(self) -> Iterable[Metric]:
        """One family."""
        holding = self.holding
        return [_gauge(self._name, self._documentation, self._label, {word: word in holding for word in self._words})]


class Children(Collector):
    """CPU time of child processes that have ended."""

    def collect(self) -> Iterable[Metric]:
        """One family."""
        spent = os.times()
        return [
            CounterMetricFamily(
                "kickwatch_children_cpu_seconds",
                "CPU time, user and system, of the child processes of kickwatch that have ended.",
                value=spent.children_user + spent.children_system,
            )
        ]


def _counter(
    name: str, documentation: str, label: str, rising: Rising[str], unknown: frozenset[str] = frozenset()
) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for word, total in rising.totals.items():
        if word not in unknown:
            family.add_metric([word], total)
    return family


def _gauge(name: str, documentation: str, label: str, values: dict[str, bool]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
