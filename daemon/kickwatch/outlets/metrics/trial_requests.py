"""The series of what reached which class of CPUs in trials: isolated or other, with containers and without.

One series for each class, not for each CPU: the number of series does not depend on the machine.
"""

from collections.abc import Callable
from math import nan

from prometheus_client import Counter, Gauge

from kickwatch.detect.figures import attributed, total_requests
from kickwatch.model import Trial, Window, WindowKind
from kickwatch.outlets.isolation import isolated_known, isolated_total
from kickwatch.outlets.metrics.label_values import CPU_CLASSES, PAIR_OUTCOMES, WINDOWS, CpuClass, PairOutcome


class TrialRequests:
    """Counters over trials that are not void, and the number of isolated CPUs in the latest of all."""

    def __init__(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """`counter` and `gauge` make a series from a name, a help text, and the values of each label."""
        self._requests = counter(
            "trial_requests",
            "Call-function requests in the windows of trials, by the class of the CPU that was asked: isolated"
            " (isolcpus, nohz_full, an isolated cpuset partition, or configured) or other. churn: with containers,"
            " quiet: without. A trial that cannot tell the classes apart adds nothing, nor does a void one.",
            cpus=CPU_CLASSES,
            window=WINDOWS,
        )
        self._ipis = counter(
            "trial_isolated_ipis",
            "IPIs of every kind, also reschedules and irq_work, that were sent to isolated CPUs in the windows of"
            " trials that are not void. Always 0 where none is isolated. NaN until the next start once a trial cannot"
            " count them: before 6.4, which has no tracepoint, and to CPUs that were isolated after the start.",
            window=WINDOWS,
        )
        self._seconds = counter(
            "trial_window_seconds",
            "Length of the windows in kickwatch_trial_requests_total.",
            window=WINDOWS,
        )
        self._pairs = counter(
            "trial_pairs",
            "Pairs of halves in trials that are not void, one half with a container and one without; outlasted: the"
            " container lived longer than its half.",
            outcome=PAIR_OUTCOMES,
        )
        self._isolated_cpus = gauge(
            "isolated_cpus", "Isolated CPUs in the latest trial; NaN before the first one. While 0, none is isolated."
        )
        self._isolated_cpus.set(nan)

    def take(self, trial: Trial, *, void: bool) -> None:
        """Count a completed trial."""
        self._isolated_cpus.set(len(trial.isolated_cpus))
        if void:
            return
        outlasted = sum(pair.outlasted for pair in trial.pairs)
        self._pairs.labels(PairOutcome.OUTLASTED).inc(outlasted)
        self._pairs.labels(PairOutcome.IN_TIME).inc(len(trial.pairs) - outlasted)
        for kind, window in ((WindowKind.CHURN, trial.churn), (WindowKind.QUIET, trial.quiet)):
            unknown = nan if trial.isolated_cpus else 0
            self._ipis.labels(kind.value).inc(unknown if window.isolated_ipis is None else window.isolated_ipis)
        if attributed(trial) and (isolated_known(trial) or not trial.isolated_cpus):
            self._count(WindowKind.CHURN, trial.churn)
            self._count(WindowKind.QUIET, trial.quiet)

    def _count(self, kind: WindowKind, window: Window) -> None:
        isolated = isolated_total(window.cells)
        self._requests.labels(CpuClass.ISOLATED, kind.value).inc(isolated)
        self._requests.labels(CpuClass.OTHER, kind.value).inc(total_requests(window.cells) - isolated)
        self._seconds.labels(kind.value).inc(window.duration_ns / 1e9)
