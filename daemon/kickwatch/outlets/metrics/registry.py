"""All series of kickwatch. They exist from the start, at zero or at the value that holds before any observation.

Cardinality is bounded: the values of labels come from closed sets (`label_values`), and at most `bill.MOST_CELLS` cells
of the bill are shown. One label is open, `release`, with one value at a time. No label holds a container, a trial or a
stack.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from math import nan
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics import disable_created_metrics

from kickwatch.detect.figures import counted
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.detect.verdict import VerdictReason, void_reasons
from kickwatch.model import Trial
from kickwatch.outlets.metrics import label_values as words
from kickwatch.outlets.metrics.bill import bill_of
from kickwatch.outlets.metrics.collectors import Billed, Children, ChoiceGauge, KernelInfo, ObserverCounters, Several
from kickwatch.outlets.metrics.label_values import known
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.others import OthersCounters
from kickwatch.outlets.metrics.streams import StreamSeries
from kickwatch.outlets.metrics.trial_requests import TrialRequests

Made = TypeVar("Made", Counter, Gauge)
# On a healthy node creation takes 10 to 20 ms and a start about 200 ms. No call takes longer than its deadline, 30 s.
_STEP_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Takes events from the event loop. `text` and `textfile` may run in a thread at the same time.

    `registry` is separate from the default one, and also has the standard `process_*` series.
    """

    def __init__(self, version: str) -> None:
        """Create all series. `version`: of kickwatch."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no creation time for each counter: that would double the series
        self._own = CollectorRegistry()
        self._observed, self._billed, self._others = ObserverCounters(), Billed(), OthersCounters()
        self._condition = ChoiceGauge(
            "kickwatch_condition",
            "What the daemon believes about this node: 1 for one of quiet, broadcasting, contended, unknown.",
            "condition",
            words.CONDITIONS,
            "unknown",
        )
        self._off = ChoiceGauge(
            "kickwatch_trials_off",
            "1 while no trials run for this reason: the node is drained, or the daemon is configured to be passive.",
            "reason",
            words.OFF,
        )
        self._kernel = KernelInfo()
        plain = (self._observed, self._others, self._billed, self._condition, self._off, self._kernel, Children())
        for collector in plain:
            self._own.register(collector)
        self._make_doubts()
        self._gauge("build_info", "The version of kickwatch: always 1.", version=(version,)).labels(version).set(1)
        self._streams = StreamSeries(self._gauge)
        self._trial_requests = TrialRequests(self._counter, self._gauge)
        self._make_trials()
        self._make_health()
        self.registry = self._with_process("")

    def _make_doubts(self) -> None:
        """What needs an operator although no stream has raised an alarm."""
        self._unknown = Several(
            "kickwatch_unknown",
            "1 for each reason why the condition is unknown; all 0 if it is known.",
            "reason",
            words.UNKNOWN_REASONS,
        )
        self._guarded = Several(
            "kickwatch_guard_paused",
            "1 for each cause of the guard's pause, during the pause.",
            "reason",
            words.PAUSE_REASONS,
        )
        self._trouble = Several(
            "kickwatch_trouble",
            "1 while this fails and is tried again: the container engine does not answer; or the history, the spent"
            " budget or the textfile cannot be written.",
            "kind",
            words.TROUBLES,
        )
        for collector in (self._unknown, self._guarded, self._trouble):
            self._own.register(collector)
        self._verdict_age = self._gauge(
            "verdict_age_seconds",
            "Seconds since the start of the last trial that established something; NaN before the first one.",
        )
        self._verdict_age.set(nan)
        self._regressed = self._gauge(
            "regressed_cells", "Cells that cost more than under the previous kernel, by an alarm that holds."
        )

    def _make_trials(self) -> None:
        self._trials = self._counter(
            "trials",
            "Trials completed, by the verdict after them; void: trials that prove nothing.",
            verdict=words.VERDICTS,
        )
        self._failed = self._counter("trials_failed", "Trials that could not be completed.")
        self._void = self._counter(
            "void_trials",
            "Void trials, by what disturbed them; a trial with several reasons counts under each.",
            reason=words.VOID_REASONS,
        )
        self._containers = self._counter(
            "containers",
            "Containers that kickwatch started: created ran and ended as asked, failed did not.",
            outcome=words.OUTCOMES,
        )
        self._reaped = self._counter("containers_reaped", "Containers left by an earlier kickwatch, and removed.")
        self._steps = Histogram(
            "kickwatch_container_step_seconds",
            "Duration of each step in the life of the containers that ran and ended as asked.",
            ["step"],
            buckets=_STEP_BOUNDS_S,
            registry=self._own,
        )
        for step in words.STEPS:
            self._steps.labels(step)

    def _make_health(self) -> None:
        self._pauses = self._counter(
            "guard_pauses", "Pauses that the guard began, by the pressure that caused them.", reason=words.PAUSE_REASONS
        )
        self._paused = self._counter(
            "guard_paused_seconds",
            "Seconds the guard blocked trials, by the pressure that caused it; several at once count under each.",
            reason=words.PAUSE_REASONS,
        )
        self._control = self._gauge(
            "control_passed", "1 if the latest positive control counted its known requests exactly."
        )
        self._stale = self._counter(
            "refreshes_failed", "Scrapes that show old figures of the observers, since new ones did not arrive."
        )

    def trial(self, trial: Trial, outcome: TrialOutcome, figures: Mapping[str, StreamFigures]) -> None:
        """A trial was completed, void or not. A void trial leaves the bill as it is."""
        self.evidence(figures)
        void = _void_words(trial)
        self._trials.labels(words.VOID if void else outcome.verdict.value).inc()
        for word in void:
            self._void.labels(word).inc()
        containers = counted(trial)
        self._containers.labels(words.ContainerOutcome.CREATED).inc(len(containers))
        self._containers.labels(words.ContainerOutcome.FAILED).inc(len(trial.containers) - len(containers))
        for container in containers:
            for step in words.STEPS:
                self._steps.labels(step).observe(getattr(container, f"{step}_ms") / 1e3)
            if container.sandbox_ms is not None:  # only engines with pods have that step
                self._steps.labels(words.SANDBOX).observe(container.sandbox_ms / 1e3)
        self._trial_requests.take(trial, void=bool(void))
        if not void:
            self._billed.bill = bill_of(trial)

    def evidence(self, figures: Mapping[str, StreamFigures]) -> None:
        """The streams after a trial, or as the previous daemon left them. A stream not named keeps its values."""
        self._streams.show(figures)

    def failed(self) -> None:
        """A trial could not be completed."""
        self._failed.inc()

    def reaped(self, containers: int) -> None:
        """Containers of an earlier kickwatch were removed."""
        self._reaped.inc(containers)

    def pauses(self, reason: str) -> None:
        """The guard began a pause for this reason."""
        self._pauses.labels(known(reason, words.PAUSE_REASONS)).inc()

    def paused(self, reason: str, seconds: float) -> None:
        """Add `seconds` to the paused time of this reason."""
        self._paused.labels(known(reason, words.PAUSE_REASONS)).inc(max(0.0, seconds))

    def control(self, passed: bool) -> None:
        """The result of the latest positive control."""
        self._control.set(passed)

    def condition(self, condition: str, reasons: Iterable[str] = ()) -> None:
        """What the daemon believes: quiet, broadcasting, contended or unknown, and why. Other words mean unknown."""
        self._condition.chosen = condition if condition in words.CONDITIONS else "unknown"
        self._unknown.holding = frozenset(known(reason, words.UNKNOWN_REASONS) for reason in reasons)

    def verdict_age(self, seconds: float | None) -> None:
        """Seconds since a trial established something; None if none has."""
        self._verdict_age.set(nan if seconds is None else seconds)

    def regressed(self, cells: int) -> None:
        """The number of cells that cost more than before."""
        self._regressed.set(cells)

    def epoch(self, since_unix_s: float) -> None:
        """When the e-processes began, in whole seconds; 0 if they have not."""
        self._streams.epoch.set(int(since_unix_s))

    def kernel(self, release: str) -> None:
        """The kernel release that the streams are about; empty before the first trial."""
        self._kernel.release = release

    def guarded(self, causes: Iterable[str]) -> None:
        """The causes of the guard's pause; none if there is no pause."""
        self._guarded.holding = frozenset(known(cause, words.PAUSE_REASONS) for cause in causes)

    def trouble(self, kind: str, *, lasts: bool) -> None:
        """Whether this fails. A word that is not in `words.TROUBLES` is not shown."""
        self._trouble.holding = self._trouble.holding | {kind} if lasts else self._trouble.holding - {kind}

    def trials_off(self, reason: str) -> None:
        """Why no trials run from now on: `drained` or `passive`; empty if they run."""
        self._off.chosen = reason

    def observe(self, live: Live) -> None:
        """The observers' newest figures."""
        self._observed.take(live)
        self._others.take(live)

    def stale(self, *, refused: bool = False) -> None:
        """A scrape has no new figures of the observers. `refused`: the kernel refused a reading."""
        self._stale.inc()
        if refused:
            self._observed.refused()
            self._others.refused()

    def text(self) -> bytes:
        """All series in text format 0.0.4, for a scrape. Reads files in /proc, so not in the event loop."""
        return generate_latest(self.registry)

    def textfile(self) -> bytes:
        """The same for node_exporter's textfile collector, with `kickwatch_process_*` instead of `process_*`.

        node_exporter has its own `process_*` series. It drops series that exist twice, and logs an error each time.
        """
        return generate_latest(self._with_process("kickwatch"))

    def _with_process(self, namespace: str) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self._own)
        ProcessCollector(namespace=namespace, registry=registry)
        return registry

    def _counter(self, name: str, documentation: str, **labels: tuple[str, ...]) -> Counter:
        return _complete(Counter(f"kickwatch_{name}", documentation, list(labels), registry=self._own), labels)

    def _gauge(self, name: str, documentation: str, **labels: tuple[str, ...]) -> Gauge:
        return _complete(Gauge(f"kickwatch_{name}", documentation, list(labels), registry=self._own), labels)


def _complete(made: Made, labels: Mapping[str, tuple[str, ...]]) -> Made:
    """With a series for every combination of label values: all of them exist from the start."""
    for values in product(*labels.values()) if labels else ():
        made.labels(*values)
    return made


def _void_words(trial: Trial) -> set[str]:
    """Why the trial is void; empty for a valid one."""
    disturbed = {disturbance.value for disturbance in trial.disturbances}
    return disturbed | {word for word in void_reasons([trial]) if word == VerdictReason.KMEM_ACCOUNTING_OFF}
