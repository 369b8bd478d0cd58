"""The series that are no plain counter or gauge of the library: made at each scrape of figures kept elsewhere."""

import os
from collections.abc import Iterable
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kickwatch.outlets.metrics import bill
from kickwatch.outlets.metrics.label_values import KINDS, OBSERVERS, PROBES, REQUEST_REASONS
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.rising import Rising

_NS = 1e9
_BUCKETS = range(40)  # of the probe: bucket i is [2**i, 2**(i+1)) ns
_FIRST_BOUND, _LAST_BOUND = 10, 34  # as powers of two: 1 us, 17 s
_CELL = ("reason", "origin", "path")
_TIME = "spent"


class ObserverCounters(Collector):
    """What the observers have counted, as counters that never fall."""

    def __init__(self) -> None:
        """All at zero."""
        self._lock = Lock()  # a scrape is put into words in a thread, while the event loop goes on
        self._interrupts: Rising[str] = Rising(KINDS, sources_return=True)
        self._begun = False
        self._requests: Rising[str] = Rising(REQUEST_REASONS)
        self._waits: Rising[int] = Rising(_BUCKETS)
        self._wait_ns: Rising[str] = Rising([_TIME])
        self._lost: Rising[str] = Rising(PROBES)
        self._up = dict.fromkeys(OBSERVERS, False)
        self._waits_known = False

    def take(self, live: Live) -> None:
        """One more reading."""
        with self._lock:
            self._take_interrupts(live)
            self._requests.feed(live.requests)
            self._waits.feed(live.waits)
            self._take_wait_time(live)
            self._lost.feed(live.lost)
            self._up = {observer: live.up.get(observer, False) for observer in OBSERVERS}
            self._waits_known = live.waits_known

    def refused(self) -> None:
        """A reading was refused: the counters stay where they are, and nothing is seen now."""
        with self._lock:
            self._up = dict.fromkeys(OBSERVERS, False)
            self._waits_known = False

    def _take_interrupts(self, live: Live) -> None:
        """They are counted from the first reading on: what came since the node's boot would be a jump."""
        if self._begun:
            self._interrupts.feed(live.interrupts)
        else:
            self._interrupts.skip(live.interrupts)
            self._begun = bool(live.interrupts)

    def _take_wait_time(self, live: Live) -> None:
        """What was waited before the mutex was known is in no bucket, so its time is not counted either."""
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
                    "Inter-processor interrupts received, all CPUs together, since the first scrape, from"
                    " /proc/interrupts: CAL function calls (on x86 they include TLB), TLB shootdowns, RES reschedules."
                    " Not known, and 0, where the architecture has no such row (TLB on arm64).",
                    "kind",
                    self._interrupts,
                ),
                _counter(
                    "kickwatch_csd_requests",
                    "Call-function requests sent, by what the other CPU is asked to run; other is what kickwatch has no"
                    " name for. Bounded: the reasons it knows. Those in the last seconds before the probe's map was"
                    ' emptied may be missing. Not known while kickwatch_observer_up{observer="csd"} is 0.',
                    "reason",
                    self._requests,
                ),
                self._waits_family(),
                _counter(
                    "kickwatch_observer_lost_events",
                    "Events that a probe saw and could not count. Not known while kickwatch_observer_up of it is 0.",
                    "observer",
                    self._lost,
                ),
                _gauge(
                    "kickwatch_observer_up",
                    "Whether this kernel lets us look: csd at requests, contention at waits, interrupts at counters;"
                    " all 0 after a scrape whose reading was refused. What is not up is not known: its counters rest.",
                    "observer",
                    self._up,
                ),
                GaugeMetricFamily(
                    "kickwatch_slab_mutex_known",
                    "Whether waits for slab_mutex are counted: a probe sees them, and knows its address. While 0,"
                    " kickwatch_slab_mutex_wait_seconds is not known, whatever it shows.",
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
            "How long tasks waited for slab_mutex, whoever they are, trials or not. Not known while"
            " kickwatch_slab_mutex_known is 0.",
            buckets=[*bounds, ("+Inf", float(so_far))],
            sum_value=self._wait_ns.totals[_TIME] / _NS,
        )


class Billed(Collector):
    """The bill of the last trial that was not void. A cell that is no longer on it vanishes."""

    def __init__(self) -> None:
        """Nothing was billed."""
        self.bill: bill.Bill | None = None

    def collect(self) -> Iterable[Metric]:
        """Two families with the same cells, and whether they are known."""
        of = (
            f"by each container of the last trial that was not void, all CPUs together, by cell: the {bill.MOST_CELLS}"
            " that matter most (the creation path's broadcasts first); all others are summed up in other, and one that"
            " is no longer among them vanishes. Not known while kickwatch_bill_known is 0."
        )
        requests = GaugeMetricFamily(
            "kickwatch_bill_requests_per_container",
            f"Call-function requests caused {of} Above the rate without containers: noise can be negative.",
            labels=_CELL,
        )
        broadcasts = GaugeMetricFamily(
            "kickwatch_bill_broadcasts_per_container", f"Broadcasts to all other CPUs made {of}", labels=_CELL
        )
        for row, cost in (self.bill or bill.EMPTY).items():
            requests.add_metric(row, cost.requests)
            broadcasts.add_metric(row, cost.broadcasts)
        known = GaugeMetricFamily(
            "kickwatch_bill_known",
            "Whether the bill is known: the last trial that was not void had containers that count, and a probe that"
            " attributed what they caused.",
            value=float(self.bill is not None),
        )
        return [requests, broadcasts, known]


class ChoiceGauge(Collector):
    """One of a closed set of words, or none: 1 for it, 0 for every other."""

    def __init__(self, name: str, documentation: str, label: str, words: tuple[str, ...], chosen: str = "") -> None:
        """`chosen` is what holds from the start; a word that is none of `words` is none."""
        self._name, self._documentation, self._label, self._words = name, documentation, label, words
        self.chosen = chosen

    def collect(self) -> Iterable[Metric]:
        """One family."""
        chosen = self.chosen
        return [_gauge(self._name, self._documentation, self._label, {word: word == chosen for word in self._words})]


class Several(Collector):
    """Those of a closed set of words that hold: 1 for each of them, 0 for every other."""

    def __init__(self, name: str, documentation: str, label: str, words: tuple[str, ...]) -> None:
        """None holds from the start."""
        self._name, self._documentation, self._label, self._words = name, documentation, label, words
        self.holding: frozenset[str] = frozenset()

    def collect(self) -> Iterable[Metric]:
        """One family."""
        holding = self.holding
        return [_gauge(self._name, self._documentation, self._label, {word: word in holding for word in self._words})]


class Children(Collector):
    """CPU time of the programs that were started and have ended."""

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


def _counter(name: str, documentation: str, label: str, rising: Rising[str]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for word, total in rising.totals.items():
        family.add_metric([word], total)
    return family


def _gauge(name: str, documentation: str, label: str, values: dict[str, bool]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
