"""Debian's promtool over what we hand to Prometheus: series, scrape configuration, rules and their tests."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from builders import kick, trial, wait, window
from kickwatch.detect.state import Outcome
from kickwatch.metrics.live import Live
from kickwatch.metrics.registry import Metrics
from kickwatch.metrics.serve import Textfile
from kickwatch.model import Verdict

pytestmark = pytest.mark.prometheus

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = DEPLOY / "rules.yml"
FOREIGN = {"up", "node_textfile_mtime_seconds"}


def promtool(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stdout + done.stderr).decode()


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def fresh() -> Metrics:
    return Metrics("1.2.3")


def used() -> Metrics:
    """Metrics after some work."""
    metrics = fresh()
    faulty = trial(kick(92), churn=window("churn", kick(92), waits=(wait(),)))
    metrics.trial(faulty, Outcome(trial="0badcafe", verdict=Verdict.BROADCASTING), {})
    metrics.trial(trial(void="recycled"), Outcome(trial="0badcaff", verdict=Verdict.UNKNOWN), {})
    metrics.observe(Live(requests={"do_sync_core": {b"k": 2**53}}, waits={20: {0: 7}}, wait_ns={b"k": 7_000_000}))
    metrics.pauses("load")
    metrics.paused("load", 1 / 3)
    return metrics


@pytest.mark.parametrize("make", [fresh, used])
def test_the_series_are_clean(make: Callable[[], Metrics]) -> None:
    done = promtool("check", "metrics", stdin=make().text())
    assert (done.returncode, said(done)) == (0, "")


async def test_the_file_is_clean_too(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    await Textfile(await asyncio.to_thread(used), str(path)).write()
    done = promtool("check", "metrics", stdin=path.read_bytes())
    assert (done.returncode, said(done)) == (0, "")


def test_promtool_would_find_what_is_not_clean() -> None:
    done = promtool("check", "metrics", stdin=used().text().replace(b"kickwatch_trials_total", b"kickwatch_trials"))
    assert done.returncode != 0
    assert "_total" in said(done)


def test_the_rules_are_clean() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, said(done)


def test_the_scrape_configuration_is_valid() -> None:
    done = promtool("check", "config", DEPLOY / "scrape.yml")
    assert done.returncode == 0, said(done)
    assert yaml.safe_load((DEPLOY / "scrape.yml").read_text()).keys() == {"scrape_configs"}  # as an include has to be


def test_the_rules_pass_their_tests() -> None:
    done = promtool("test", "rules", DEPLOY / "rules_test.yml")
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('condition="broadcasting"', 'condition="quiet"'),
        ('{condition="broadcasting"} == 1', "== 1"),
        ('condition="contended"', 'condition="broadcasting"'),
        ("unless on (job, instance) kickwatch_trials_off == 1", ""),
        ("for: 1h", "for: 0s"),
        ("kickwatch_control_passed == 0", "kickwatch_control_passed == 1"),
        ('{verdict!="unknown"}', ""),
        ("and on (job, instance) (kickwatch_build_info offset 2h)", ""),
        ("unless on (job, instance) max_over_time(kickwatch_trials_off[2h]) == 1", ""),
        ("(increase(kickwatch_guard_paused_seconds_total[2h])) > 3600", "(kickwatch_build_info) > 1"),
        ('up{job="kickwatch"} == 0', "up == 0"),
        ("for: 5m", "for: 0s"),
        ('{file=~"(.*/)?kickwatch[^/]*[.]prom"}', ""),
        ("absent(kickwatch_build_info)", "absent(up)"),
        ("max_over_time(stream:kickwatch_e_process:count[1d])", "stream:kickwatch_e_process:count"),
        ("sum by (stream) (kickwatch_e_process)", "max by (stream) (kickwatch_e_process)"),
        ("mean >= 1e6", "mean >= 1e5"),
        ("mean >= 1e6", "mean >= 1e9"),
    ],
)
def test_the_tests_notice_a_rule_that_is_wrong(was: str, becomes: str, tmp_path: Path) -> None:
    text = RULES.read_text()
    assert was in text
    (tmp_path / "rules.yml").write_text(text.replace(was, becomes))
    shutil.copy(DEPLOY / "rules_test.yml", tmp_path)
    assert promtool("test", "rules", tmp_path / "rules_test.yml").returncode != 0


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    expected: dict[str, set[bool]] = {}
    for test in yaml.safe_load((DEPLOY / "rules_test.yml").read_text())["tests"]:
        for expectation in test["promql_expr_test"]:
            for name in re.findall(r'alertname="(\w+)"', expectation["expr"]):
                expected.setdefault(name, set()).add(bool(expectation["exp_samples"]))
    assert expected == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_says_what_it_means_how_to_confirm_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["annotations"].keys() == {"summary", "description", "confirm", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_rules_ask_for_series_that_exist() -> None:
    families = text_string_to_metric_families(used().text().decode())
    shown = {sample.name for family in families for sample in family.samples}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    texts = [text for rule in rules() for text in (rule["expr"], *rule.get("annotations", {}).values())]
    names = re.compile(r"(?:stream:)?kickwatch_[a-z0-9_:]+|\bup\b|node_\w+")
    asked = {name for text in texts for name in names.findall(text)}
    assert len(asked) > 10
    assert asked - FOREIGN <= shown | recorded
