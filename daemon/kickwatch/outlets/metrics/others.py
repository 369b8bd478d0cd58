"""The series of passive mode: the containers that others started, as the kernel counted them."""

from collections.abc import Iterable
from threading import Lock

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kickwatch.outlets.metrics.label_values import ENGINES
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.rising import Rising


class OthersCounters(Collector):
    """Containers by engine, and whether all of them are counted."""

    def __init__(self) -> None:
        """All at zero, and not known."""
        self._lock = Lock()
        self._containers: Rising[str] = Rising(ENGINES)
        self._known = False

    def take(self, live: Live) -> None:
        """Take a reading."""
        with self._lock:
            self._containers.feed(live.others)
            self._known = live.others_known

    def refused(self) -> None:
        """The kernel refused a reading."""
        with self._lock:
            self._known = False

    def collect(self) -> Iterable[Metric]:
        """The families."""
        with self._lock:
            containers = CounterMetricFamily(
                "kickwatch_passive_containers",
                "Containers that others started while the daemon was passive, by the engine that their cgroup's name"
                " tells; runc, crun, ...: a runtime whose engine the name does not tell; other: no such name. A lower"
                " bound while kickwatch_passive_containers_known is 0.",
                labels=["engine"],
            )
            for engine, total in self._containers.totals.items():
                containers.add_metric([engine], total)
            known = GaugeMetricFamily(
                "kickwatch_passive_containers_known",
                "1 if the containers that others start are counted, and none has been missed since the daemon's start."
                " 0 in a daemon that makes trials, and where the cgroup tracepoints cannot be had.",
                value=float(self._known),
            )
            return [containers, known]
