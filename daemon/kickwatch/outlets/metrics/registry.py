"""Every series of kickwatch. All are there from the start, at zero or at what is true of nothing observed.

Cardinality is bounded: every label takes its value from a closed set (`words`), and of the bill's cells at most
`bill.MOST_CELLS` are shown. No label carries a container, a trial or a stack.
"""

from collections.abc import Iterable, Mapping
from math import inf, nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics import disable_created_metrics

from kickwatch.detect.figures import counted
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.detect.verdict import VerdictReason, void_reasons
from kickwatch.model import Trial
from kickwatch.outlets.metrics import label_values as words
from kickwatch.outlets.metrics.bill import bill_of
from kickwatch.outlets.metrics.collectors import Billed, Children, ChoiceGauge, ObserverCounters, Several
from kickwatch.outlets.metrics.label_values import known
from kickwatch.outlets.metrics.live import Live

# Creation takes 10 to 20 ms where nothing is wrong, a start some 200 ms, and no call more than its deadline of 30 s.
_STEP_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NOTHING = StreamFigures(alerted=False, evidence=0.0, threshold=inf, e_process=1.0)


class Metrics:
    """Takes what happens, from the event loop; `text` and `textfile` may be called in a thread meanwhile.

    `registry` is a registry of its own and holds the standard `process_*` series, too.
    """

    def __init__(self, version: str) -> None:
        """All series. `version` is that of kickwatch."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a start time for each counter: as many series again
        self._own = CollectorRegistry()
        self._observed, self._billed = ObserverCounters(), Billed()
        self._condition = ChoiceGauge(
            "kickwatch_condition",
            "What the daemon believes of this node: 1 for one of quiet, broadcasting, contended, unknown.",
            "condition",
            words.CONDITIONS,
            "unknown",
        )
        self._off = ChoiceGauge(
            "kickwatch_trials_off",
            "1 while no trials are made because of this: drained by somebody, or passive by configuration.",
            "reason",
            words.OFF,
        )
        for collector in (self._observed, self._billed, self._condition, self._off, Children()):
            self._own.register(collector)
        self._make_doubts()
        self._gauge("build_info", "The version of kickwatch: always 1.", version=(version,)).labels(version).set(1)
        self._make_evidence()
        self._make_trials()
        self._make_health()
        self.evidence(dict.fromkeys(words.STREAMS, _NOTHING))
        self.registry = self._with_process("")

    def _make_doubts(self) -> None:
        """What an operator has to do something about, though no stream has an alarm."""
        self._unknown = Several(
            "kickwatch_unknown",
            "1 for each reason why the condition is unknown; 0 for all of them where it is known.",
            "reason",
            words.UNKNOWN_REASONS,
        )
        self._guarded = Several(
            "kickwatch_guard_paused",
            "1 for each cause of the guard's pause while it goes on.",
            "reason",
            words.PAUSE_REASONS,
        )
        self._trouble = Several(
            "kickwatch_trouble",
            "1 while this fails and is tried again: the container engine does not answer; the history, what was spent"
            " of the budget, or the textfile cannot be written.",
            "kind",
            words.TROUBLES,
        )
        for collector in (self._unknown, self._guarded, self._trouble):
            self._own.register(collector)
        self._verdict_age = self._gauge(
            "verdict_age_seconds",
            "Seconds since the trial began that last established something; NaN before the first that did.",
        )
        self._verdict_age.set(nan)
        self._regressed = self._gauge(
            "regressed_cells", "Cells that cost more than under the kernel before, by an alarm that holds."
        )

    def _make_evidence(self) -> None:
        self._alerted = self._gauge("stream_alerted", "Whether the stream's alarm holds.", stream=words.STREAMS)
        self._evidence = self._gauge(
            "evidence",
            "How strongly the observations speak against a healthy kernel: an e-detector's value; the alarm is raised"
            " where it reaches the threshold. At most 1e300.",
            stream=words.STREAMS,
        )
        self._threshold = self._gauge(
            "evidence_threshold",
            "Where the stream raises its alarm: one false one in 1000 node-years, all streams together. +Inf before"
            " the first trial.",
            stream=words.STREAMS,
        )
        self._e_process = self._gauge(
            "e_process",
            "The e-process since the fleet's common epoch of 90 days; 1 says nothing. The mean over nodes is one, too.",
            stream=words.STREAMS,
        )
        self._epoch = self._gauge(
            "e_process_start_timestamp_seconds",
            "When this node's e-processes of the epoch began, Unix time; 0 before. A node that loses its state begins"
            " again, and is one more draw of the fleet's.",
        )

    def _make_trials(self) -> None:
        self._trials = self._counter(
            "trials",
            "Trials taken, by what the daemon believed after them; void ones, which prove nothing, are void.",
            verdict=words.VERDICTS,
        )
        self._failed = self._counter("trials_failed", "Trials that could not be made to their end.")
        self._void = self._counter(
            "void_trials",
            "Trials that prove nothing, by what disturbed them; one of several reasons counts under each.",
            reason=words.VOID_REASONS,
        )
        self._containers = self._counter(
            "containers",
            "Containers of our own: created lived and ended as asked, failed did not.",
            outcome=words.OUTCOMES,
        )
        self._reaped = self._counter("containers_reaped", "Containers that an earlier kickwatch left, removed.")
        self._steps = Histogram(
            "kickwatch_container_step_seconds",
            "How long the steps of a container's life took, of those that lived and ended as asked.",
            ["step"],
            buckets=_STEP_BOUNDS_S,
            registry=self._own,
        )
        for step in words.STEPS:
            self._steps.labels(step)

    def _make_health(self) -> None:
        self._pauses = self._counter(
            "guard_pauses", "Pauses of the guard begun, by what pressed the node.", reason=words.PAUSE_REASONS
        )
        self._paused = self._counter(
            "guard_paused_seconds",
            "Time in which the guard let no trial begin, by what pressed the node; several at once count under each.",
            reason=words.PAUSE_REASONS,
        )
        self._control = self._gauge(
            "control_passed", "Whether the latest positive control counted its known requests exactly."
        )
        self._stale = self._counter(
            "refreshes_failed", "Scrapes that show the observers' figures of an earlier one, since they did not answer."
        )

    def trial(self, trial: Trial, outcome: TrialOutcome, figures: Mapping[str, StreamFigures]) -> None:
        """A trial was taken, void or not. The bill stays the last valid trial's."""
        self.evidence(figures)
        void = _void_words(trial)
        self._trials.labels(words.VOID if void else outcome.verdict.value).inc()
        for word in void:
            self._void.labels(word).inc()
        lived = counted(trial)
        self._containers.labels(words.ContainerOutcome.CREATED).inc(len(lived))
        self._containers.labels(words.ContainerOutcome.FAILED).inc(len(trial.containers) - len(lived))
        for life in lived:
            for step, took_ms in zip(
                words.STEPS, (life.create_ms, life.start_ms, life.wait_ms, life.remove_ms), strict=True
            ):
                self._steps.labels(step).observe(took_ms / 1e3)
        if not void:
            self._billed.bill = bill_of(trial)

    def evidence(self, figures: Mapping[str, StreamFigures]) -> None:
        """The streams as they stand: after a trial, or as the last daemon left them. A stream not named stays."""
        for stream, shown in figures.items():
            if stream in words.STREAMS:
                self._alerted.labels(stream).set(shown.alerted)
                self._evidence.labels(stream).set(shown.evidence)
                self._threshold.labels(stream).set(shown.threshold)
                self._e_process.labels(stream).set(shown.e_process)

    def failed(self) -> None:
        """A trial could not be made to its end."""
        self._failed.inc()

    def reaped(self, containers: int) -> None:
        """So many left-overs of an earlier kickwatch were removed."""
        self._reaped.inc(containers)

    def pauses(self, reason: str) -> None:
        """The guard began to pause for this reason."""
        self._pauses.labels(known(reason, words.PAUSE_REASONS)).inc()

    def paused(self, reason: str, seconds: float) -> None:
        """It paused so much longer for this reason."""
        self._paused.labels(known(reason, words.PAUSE_REASONS)).inc(max(0.0, seconds))

    def control(self, passed: bool) -> None:
        """The latest positive control."""
        self._control.set(passed)

    def condition(self, condition: str, reasons: Iterable[str] = ()) -> None:
        """What the daemon believes: quiet, broadcasting, contended or unknown, and why; any other word is unknown."""
        self._condition.chosen = condition if condition in words.CONDITIONS else "unknown"
        self._unknown.holding = frozenset(known(reason, words.UNKNOWN_REASONS) for reason in reasons)

    def verdict_age(self, seconds: float | None) -> None:
        """How long ago a trial established something; None where none has."""
        self._verdict_age.set(nan if seconds is None else seconds)

    def regressed(self, cells: int) -> None:
        """So many cells are more expensive than they were."""
        self._regressed.set(cells)

    def epoch(self, since_unix_s: float) -> None:
        """When the e-processes began, to the second; 0 where they have not."""
        self._epoch.set(int(since_unix_s))

    def guarded(self, causes: Iterable[str]) -> None:
        """The guard's pause goes on for these causes; with none of them there is no pause."""
        self._guarded.holding = frozenset(known(cause, words.PAUSE_REASONS) for cause in causes)

    def trouble(self, kind: str, *, lasts: bool) -> None:
        """Whether this fails; a word that is none of `words.TROUBLES` is shown nowhere."""
        self._trouble.holding = self._trouble.holding | {kind} if lasts else self._trouble.holding - {kind}

    def trials_off(self, reason: str) -> None:
        """`drained` or `passive` from now on, or with an empty string neither."""
        self._off.chosen = reason

    def observe(self, live: Live) -> None:
        """The observers' newest figures."""
        self._observed.take(live)

    def stale(self, *, refused: bool = False) -> None:
        """A scrape had to go without the observers' newest figures; `refused`: the kernel does not let us read them."""
        self._stale.inc()
        if refused:
            self._observed.refused()

    def text(self) -> bytes:
        """Everything in the text format 0.0.4, for a scrape. Reads files of /proc: not in the event loop."""
        return generate_latest(self.registry)

    def textfile(self) -> bytes:
        """The same for node_exporter's textfile collector, which has `process_*` series of its own: here `kickwatch_`.

        What is there twice it drops, with an error in its log at every scrape.
        """
        return generate_latest(self._with_process("kickwatch"))

    def _with_process(self, namespace: str) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self._own)
        ProcessCollector(namespace=namespace, registry=registry)
        return registry

    def _counter(self, name: str, documentation: str, **labels: tuple[str, ...]) -> Counter:
        made = Counter(f"kickwatch_{name}", documentation, list(labels), registry=self._own)
        for (word,) in zip(*labels.values(), strict=True):
            made.labels(word)
        return made

    def _gauge(self, name: str, documentation: str, **labels: tuple[str, ...]) -> Gauge:
        made = Gauge(f"kickwatch_{name}", documentation, list(labels), registry=self._own)
        for (word,) in zip(*labels.values(), strict=True):
            made.labels(word)
        return made


def _void_words(trial: Trial) -> set[str]:
    """Why the trial proves nothing; empty for a valid one."""
    disturbed = {disturbance.value for disturbance in trial.disturbances}
    return disturbed | {word for word in void_reasons([trial]) if word == VerdictReason.KMEM_ACCOUNTING_OFF}
