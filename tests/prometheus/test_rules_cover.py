"""Whatever a daemon can believe, lack or fail at makes one alert of the right severity; a healthy one makes none.

The nodes are real `Metrics`, each with one thing wrong, so that a new stream, reason, cause or trouble cannot be
forgotten: it comes here by itself, and has no alert.
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
from kickwatch.outlets.metrics.registry import Metrics

pytestmark = pytest.mark.prometheus

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
STEPS = 324  # of 5 minutes: 27 hours, since a guard has to pause for a day
PAGE, TICKET = "critical", "warning"
SEVERITY = {"error": PAGE, "warning": TICKET}  # by the level of the event that raises the condition
UNDECIDED_TRIALS = {"insufficient_evidence", "too_few_containers", "containers_failed", "broadcasts_elsewhere"}


def healthy() -> Metrics:
    """A node that was found quiet."""
    metrics = Metrics("1.2.3")
    metrics.condition("quiet")
    metrics.control(passed=True)
    metrics.verdict_age(60.0)
    metrics.epoch(60.0)
    return metrics


def with_alarm(name: StreamName) -> Metrics:
    """The alarm of a stream holds."""
    metrics = healthy()
    metrics.evidence({name.value: StreamFigures(alerted=True, evidence=1e12, threshold=1e10, e_process=1.0)})
    return metrics


def with_regression() -> Metrics:
    """A cell costs more than it did."""
    metrics = healthy()
    metrics.regressed(1)
    return metrics


def unknown(reason: str) -> Metrics:
    """The condition is unknown because of this."""
    metrics = healthy()
    metrics.condition("unknown", (reason,))
    return metrics


def in_trouble(kind: str) -> Metrics:
    """This fails."""
    metrics = healthy()
    metrics.trouble(kind, lasts=True)
    return metrics


def paused(cause: str) -> Metrics:
    """The guard has paused since the beginning."""
    metrics = healthy()
    metrics.guarded((cause,))
    return metrics


def nodes() -> Iterator[tuple[str, Metrics, str]]:
    """(name, node, severity of the one alert it makes; empty for none)."""
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
    """What a Prometheus has of the node, for 27 hours. Valid trials go on, undecided where the reason is such a one."""
    told = instance.removeprefix("unknown ") in UNDECIDED_TRIALS
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if not asked(sample.name) or sample.value != sample.value:
                continue
            labels = {**sample.labels, "job": "kickwatch", "instance": instance}
            rising = sample.name == "kickwatch_trials_total" and labels["verdict"] == ("unknown" if told else "quiet")
            named = ", ".join(f'{label}="{value}"' for label, value in labels.items())
            values = f"0+1x{STEPS}" if rising else f"{sample.value:g}x{STEPS}"
            yield {"series": f"{sample.name}{{{named}}}", "values": values}


def test_whatever_is_wrong_makes_one_alert_of_the_right_severity_and_nothing_else(tmp_path: Path) -> None:
    rules = (DEPLOY / "rules.yml").read_text()
    wanted = set(re.findall(r"\bkickwatch_\w+", " ".join(rule["expr"] for rule in all_rules())))
    found = list(nodes())
    expected = [
        {"labels": f'{{instance="{name}", severity="{severity}"}}', "value": 1}
        for name, _, severity in found
        if severity
    ]
    test = {
        "name": "every node has one thing wrong",
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


def test_every_event_that_detects_something_is_one_of_a_condition_that_has_an_alert() -> None:
    assert {raised for raised, _, _ in CHANGES.values()} == {event for event in Event if event.endswith("_detected")}
    assert set(CHANGES) == set(AlarmKind)
    assert set(STREAMS) == set(StreamName)


def test_every_word_that_a_rule_asks_for_is_one_that_a_daemon_says() -> None:
    """A stream or a reason that is renamed would leave a rule that never fires."""
    text = healthy().text().decode()
    said: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                said.setdefault((sample.name, label), set()).add(value)
    asked = 0
    for rule in all_rules():
        for name, selector in re.findall(r"(kickwatch_\w+)\{([^}]*)\}", rule["expr"]):
            for label, words_asked in re.findall(r'(\w+)[!=]~?"([^"]*)"', selector):
                assert set(words_asked.split("|")) <= said[name, label], f"{name} {label}"
                asked += 1
    assert asked > 15


def test_every_alert_has_a_paragraph_for_whoever_it_wakes() -> None:
    """Pages and tickets apart, each with what to do."""
    page = (DEPLOY.parents[1] / "OPERATIONS.md").read_text()
    section = page.partition("## This alert fired: do this")[2].partition("\n## ")[0]
    pages, tickets = section.partition("### Tickets")[::2]
    for severity, part in ((PAGE, pages), (TICKET, tickets)):
        alerts = {rule["alert"] for rule in all_rules() if "alert" in rule and rule["labels"]["severity"] == severity}
        assert set(re.findall(r"^\*\*(Kickwatch\w+)\*\*", part, re.MULTILINE)) == alerts
