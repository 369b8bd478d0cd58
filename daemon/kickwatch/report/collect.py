"""Everything a report shows, collected trial by trial: a history of any length is read once and never held. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from kickwatch.detect.figures import counted
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.detect.verdict import void_reasons
from kickwatch.model import Node, Trial
from kickwatch.report.bins import Bins
from kickwatch.report.passive_totals import PassiveTotals
from kickwatch.report.spans import Spans
from kickwatch.report.tally import Tally

MOST_CHANGES = 300
MOST_GAPS = 200
MOST_NODES = 50
MOST_KERNELS = 50
OTHER_KERNELS = "further releases"
_GAP_PERIODS = 3.0  # between two trials; a daemon at work starts one every period
_LEAST_GAP_S = 60.0

Evidence = Callable[[], Mapping[str, StreamFigures]]


class Collector:
    """Add every trial in order; the attributes are what the report is made of."""

    def __init__(self) -> None:
        """No trial yet."""
        self.trials = self.void = self.attempts = 0
        self.bins = Bins()
        self.tallies: dict[str, Tally] = {}
        self.passive: dict[str, PassiveTotals] = {}
        self.spans = {name: Spans() for name in ("verdict", "kernel", "engine", "boot")}
        self.changes: list[dict[str, Any]] = []
        self.changes_left_out = 0
        self.gaps: list[dict[str, Any]] = []
        self.nodes: dict[tuple[Any, ...], dict[str, int]] = {}
        self.last: Trial | None = None
        self.thresholds: dict[str, float] = {}
        self.last_evidence: Mapping[str, StreamFigures] = {}
        self.evidence_read = 0  # how often
        self.outcome: TrialOutcome | None = None
        self._segment = -1
        self._where: tuple[Any, ...] = ()

    def add(self, trial: Trial, outcome: TrialOutcome, evidence: Evidence, pace: Pace | None = None) -> None:
        """One more trial, its recomputed outcome, and the evidence after it, which is read only now and then."""
        began, ended = trial.started_unix_s, _end(trial)
        void = [each.value for each in trial.disturbances] or void_reasons([trial])
        self._note_gap(trial, pace)
        self._enter(trial.node)
        good = counted(trial)
        self._add_spans(trial, outcome, began, ended)
        self._add_node(trial, len(good))
        of = self.bins.current(self._segment, trial.node.kernel, began)
        of.last_unix_s, of.verdict = max(of.last_unix_s, ended), outcome.verdict.value
        tally = self._tally(trial.node.kernel)
        tally.failed += len(trial.containers) - len(good)
        self.attempts += 1
        if void:
            self.void += 1
            of.void += 1
            tally.void_trials += 1
            tally.void.update(void)
        else:
            self.trials += 1
            of.trials += 1
            if trial.looks:
                self._add_passive(trial, tally)
            else:
                of.add(trial, good)
                tally.add(trial, good)
        self._note_changes(trial, outcome)
        if outcome.changes or self.attempts % self.bins.width == 0:
            self._read(evidence, of.evidence)
        self.last, self.outcome = trial, outcome

    def conclude(self, evidence: Evidence) -> None:
        """After the last trial: read the evidence once more."""
        if self.bins.bins:
            self._read(evidence, self.bins.bins[-1].evidence)

    def _read(self, evidence: Evidence, into: dict[str, float]) -> None:
        self.last_evidence = evidence()
        self.evidence_read += 1
        for name, figures in self.last_evidence.items():
            self.thresholds[name] = figures.threshold
            into[name] = max(into.get(name, 0.0), figures.evidence)

    def _add_passive(self, record: Trial, tally: Tally) -> None:
        """A record of passive mode counts among the trials, and adds no figure to theirs."""
        tally.trials += 1
        tally.ipi_rung = record.observers.ipis.value
        name = record.node.kernel if self.tallies.get(record.node.kernel) is tally else OTHER_KERNELS
        self.passive.setdefault(name, PassiveTotals()).add(record)

    def _tally(self, kernel: str) -> Tally:
        if kernel not in self.tallies and len(self.tallies) >= MOST_KERNELS:
            kernel = OTHER_KERNELS
        return self.tallies.setdefault(kernel, Tally())

    def _enter(self, node: Node) -> None:
        where = (node.kernel, node.engine, node.boot_id)
        if where != self._where:
            self._where, self._segment = where, self._segment + 1

    def _add_spans(self, trial: Trial, outcome: TrialOutcome, began: float, ended: float) -> None:
        node = trial.node
        self.spans["verdict"].add(outcome.verdict.value, began, ended)
        self.spans["kernel"].add(node.kernel, began, ended)
        self.spans["engine"].add(node.engine, began, ended)
        self.spans["boot"].add(node.boot_id, began, ended)

    def _add_node(self, trial: Trial, containers: int) -> None:
        node = trial.node
        fields = (node.kernel, node.arch, node.cpus_online, node.cgroup, node.engine, node.runtime, node.network)
        key = (*fields, trial.kmem_accounting.value)
        if key in self.nodes or len(self.nodes) < MOST_NODES:
            known = self.nodes.setdefault(key, {"trials": 0, "containers": 0})
            known["trials"] += 1
            known["containers"] += containers

    def _note_gap(self, trial: Trial, pace: Pace | None) -> None:
        """Time without a trial. The history does not store why: the guard, a stop, or a machine that was off."""
        if self.last is None or pace is None or len(self.gaps) >= MOST_GAPS:
            return
        since = _end(self.last)
        if trial.started_unix_s - since <= max(_LEAST_GAP_S, _GAP_PERIODS * pace.period_s):
            return
        booted = trial.node.boot_id != self.last.node.boot_id
        why = "another boot" if booted else "not known"
        self.gaps.append({"first_unix_s": since, "last_unix_s": trial.started_unix_s, "why": why})

    def _note_changes(self, trial: Trial, outcome: TrialOutcome) -> None:
        for change in outcome.changes:
            if len(self.changes) >= MOST_CHANGES:
                self.changes_left_out += 1
                continue
            self.changes.append(
                {
                    "trial": trial.trial_id,
                    "unix_s": trial.started_unix_s,
                    "kind": change.kind.value,
                    "alarm": change.alarm.value,
                    "stream": change.stream,
                    "text": change.text,
                    "evidence": change.evidence,
                    "threshold": change.threshold,
                }
            )


def _end(trial: Trial) -> float:
    """When the trial's windows were over."""
    return trial.started_unix_s + (trial.churn.duration_ns + trial.quiet.duration_ns) / 1e9
