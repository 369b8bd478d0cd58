"""The series of the detectors' streams: evidence, threshold, alarm and e-process of each."""

from collections.abc import Callable, Mapping
from math import inf

from prometheus_client import Gauge

from kickwatch.detect.state import StreamFigures
from kickwatch.outlets.metrics.label_values import STREAMS

_BEFORE_THE_FIRST_TRIAL = StreamFigures(alerted=False, evidence=0.0, threshold=inf, e_process=1.0)


class StreamSeries:
    """A row of gauges for each stream, and the start of their epoch."""

    def __init__(self, gauge: Callable[..., Gauge]) -> None:
        """`gauge` makes a gauge from a name, a help text, and the values of its label."""
        self._alerted = gauge("stream_alerted", "1 while the stream's alarm holds.", stream=STREAMS)
        self._evidence = gauge(
            "evidence",
            "How strongly the observations speak against a healthy kernel: the value of an e-detector, at most 1e300."
            " The alarm is raised when it reaches kickwatch_evidence_threshold.",
            stream=STREAMS,
        )
        self._threshold = gauge(
            "evidence_threshold",
            "The evidence at which the stream raises its alarm: at most one false alarm per 1000 node-years, all"
            " streams together. +Inf before the first trial.",
            stream=STREAMS,
        )
        self._e_process = gauge(
            "e_process",
            "The e-process since the start of the fleet's 90-day epoch, or since the first trial under another kernel"
            " release; 1 is no evidence, and it is at most 1e15. The mean over nodes is an e-process, too.",
            stream=STREAMS,
        )
        self.epoch = gauge(
            "e_process_start_timestamp_seconds",
            "Unix time at which this node's e-processes of the epoch began; 0 before. A node that loses its state, or"
            " gets another kernel release, begins again, and then counts as one more node of the fleet.",
        )
        self.show(dict.fromkeys(STREAMS, _BEFORE_THE_FIRST_TRIAL))

    def show(self, figures: Mapping[str, StreamFigures]) -> None:
        """Set the gauges of these streams. A stream that is not in `figures` keeps its values."""
        for stream, shown in figures.items():
            if stream in STREAMS:
                self._alerted.labels(stream).set(shown.alerted)
                self._evidence.labels(stream).set(shown.evidence)
                self._threshold.labels(stream).set(shown.threshold)
                self._e_process.labels(stream).set(shown.e_process)
