"""Each fault that a daemon can report raises exactly one alert of the right severity; a healthy daemon raises none.

The nodes are real `Metrics` objects, each with one fault. The faults are enumerated from the code, so a new stream,
reason, cause or trouble without an alert fails here.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from kickwatch.detect.state import StreamFigures
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.journal.journal import Event
from kickwatch.model import AlarmKind
from kickwatch.outlets.changes import _EVENTS as CHANGES
from kickwatch.outlets.metrics import label_values as words
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.registry import Metrics

pytestmark = pytest.mark.prometheus

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
STEPS = 324  # of 5 minutes: 27 hours, because a guard must pause for a day
PAGE, TICKET = "critical", "warning"
SEVERITY = {"error": PAGE, "warning": TICKET}  # by the level of the event that raises the condition
UNDECIDED_TRIALS = {"insufficient_evidence", "too_few_containers", "containers_failed", "broadcasts_elsewhere"}


def healthy() -> Metrics:
    """A node whose condition is quiet."""
    metrics = Metrics("1.2.3")
    metrics.condition("quiet")
    metrics.control(passed=True)
    metrics.verdict_age(60.0)
    metrics.epoch(60.0)
    return metrics


def with_alarm(name: StreamName) -> Metrics:
    """A node with an alarm of this stream."""
    metrics = healthy()
    metrics.evidence({name.value: StreamFigures(alerted=True, evidence=1e12, threshold=1e10, e_process=1.0)})
    return metrics


def with_regression() -> Metrics:
    """A node with a cell that costs more than before."""
    metrics = healthy()
    metrics.regressed(1)
    return metrics


def unknown(reason: str) -> Metrics:
    """A node whose condition is unknown for this reason."""
    metrics = healthy()
    metrics.condition("unknown", (reason,))
    return metrics


def in_trouble(kind: str) -> Metrics:
    """A node with this trouble."""
    metrics = healthy()
    metrics.trouble(kind, lasts=True)
    return metrics


def paused(cause: str) -> Metrics:
    """A node whose guard has paused all the time."""
    metrics = healthy()
    metrics.guarded((cause,))
    return metrics


def nodes() -> Iterator[tuple[str, Metrics, str]]:
    """(name, node, severity of its one alert or empty)."""
    yield "healthy", healthy(), ""
    for condition, (_, level, _) in CHANGES.items():
        streams = [name for name, row in STREAMS.items() if row.alarm is condition]
        assert streams or condition is AlarmKind.REGRESSED
        for name in streams:
            yield f"stream {name.value}", with_alarm(name), SEVERITY[level]
        if not streams:
            yield "regressed", with_regression(), SEVERITY[level]
    for reason in words.UNKNOWN_REASONS:
        yield f"unknown {reason}", unknown(reason), PAGE if reason == "containers_failed" else TICKET
    for kind in words.TROUBLES:
        yield f"trouble {kind}", in_trouble(kind), TICKET
    for cause in words.PAUSE_REASONS:
        yield f"paused {cause}", paused(cause), TICKET


def series(instance: str, metrics: Metrics, asked: Callable[[str], bool]) -> Iterator[dict[str, str]]:
    """The node's series in a Prometheus for 27 hours. Valid trials continue; with some reasons they are undecided."""
    verdict = "unknown" if instance.removeprefix("unknown ") in UNDECIDED_TRIALS else "quiet"
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if not asked(sample.name) or sample.value != sample.value:
                continue
            labels = {**sample.labels, "job": "kickwatch", "instance": instance}
            rising = sample.name == "kickwatch_trials_total" and labels["verdict"] == verdict
            named = ", ".join(f'{label}="{value}"' for label, value in labels.items())
            values = f"0+1x{STEPS}" if rising else f"{sample.value:g}x{STEPS}"
            yield {"series": f"{sample.name}{{{named}}}", "values": values}


@pytest.mark.long
def test_each_fault_raises_exactly_one_alert_of_the_right_severity(tmp_path: Path) -> None:
    rules = (DEPLOY / "rules.yml").read_text()
    wanted = set(re.findall(r"\bkickwatch_\w+", " ".join(rule["expr"] for rule in all_rules())))
    found = list(nodes())
    expected = [
        {"labels": f'{{instance="{name}", severity="{severity}"}}', "value": 1}
        for name, _, severity in found
        if severity
    ]
    test = {
        "name": "every node has one fault",
        "interval": "5m",
        "input_series": [one for name, node, _ in found for one in series(name, node, wanted.__contains__)],
        "promql_expr_test": [
            {
                "expr": 'count by (instance, severity) (ALERTS{alertstate="firing"})',
                "eval_time": f"{5 * STEPS - 10}m",
                "exp_samples": expected,
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(rules)
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": [test]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def all_rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((DEPLOY / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_detection_event_belongs_to_a_condition_with_an_alert() -> None:
    detections = {event for event in Event if event.endswith("_detected")} | {Event.ISOLATION_BROKEN}
    assert {raised for raised, _, _ in CHANGES.values()} == detections
    assert set(CHANGES) == set(AlarmKind)
    assert set(STREAMS) == set(StreamName)


def test_every_label_value_in_a_rule_is_exported() -> None:
    """After renaming a stream or a reason a rule would never fire."""
    metrics = healthy()
    metrics.observe(Live(up={"containers": True}))  # of a passive daemon
    text = metrics.text().decode()
    exported: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                exported.setdefault((sample.name, label), set()).add(value)
    asked = 0
    for rule in all_rules():
        for name, selector in re.findall(r"(kickwatch_\w+)(?::release)?\{([^}]*)\}", rule["expr"]):
            for label, words_asked in re.findall(r'(\w+)[!=]~?"([^"]*)"', selector):
                assert set(words_asked.split("|")) <= exported[name, label], f"{name} {label}"
                asked += 1
    assert asked > 15


def test_every_alert_has_a_paragraph_in_operations_md() -> None:
    """Under a heading, to which runbook_url points: what to do, pages and tickets separately."""
    page = (DEPLOY.parents[1] / "docs/operations.md").read_text()
    section = page.partition("## This alert fired: do this")[2].partition("\n## ")[0]
    pages, tickets = section.partition("### Tickets")[::2]
    for severity, part in ((PAGE, pages), (TICKET, tickets)):
        alerts = {rule["alert"] for rule in all_rules() if "alert" in rule and rule["labels"]["severity"] == severity}
        assert set(re.findall(r"^#### (Kickwatch\w+)$", part, re.MULTILINE)) == alerts
