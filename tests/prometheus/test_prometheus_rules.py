"""Debian's promtool checks everything for Prometheus: series, scrape configuration, rules and their tests."""

import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from builders import kick, trial, wait, window
from kickwatch.detect.state import TrialOutcome
from kickwatch.model import Verdict
from kickwatch.outlets.metrics.bill import MOST_CELLS
from kickwatch.outlets.metrics.live import Live
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.outlets.metrics.textfile import Textfile

pytestmark = [pytest.mark.prometheus, pytest.mark.promtool]

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = DEPLOY / "rules.yml"
TESTS = [DEPLOY / name for name in ("rules_test.yml", "rules_days_test.yml", "rules_release_test.yml")]
Tested = tuple[subprocess.CompletedProcess[bytes], subprocess.CompletedProcess[bytes]]
BASE = "{{ $externalLabels.kickwatch_docs }}"  # where the documentation is served
FOREIGN = {"kickwatch_docs", "up", "node_textfile_mtime_seconds"}


def promtool(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=110, check=False)


def output_of(done: subprocess.CompletedProcess[bytes]) -> str:
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
    metrics.trial(faulty, TrialOutcome(trial="0badcafe", verdict=Verdict.BROADCASTING), {})
    metrics.trial(trial(void="recycled"), TrialOutcome(trial="0badcaff", verdict=Verdict.UNKNOWN), {})
    metrics.observe(Live(requests={"do_sync_core": {b"k": 2**53}}, waits={20: {0: 7}}, wait_ns={b"k": 7_000_000}))
    metrics.pauses("load")
    metrics.paused("load", 1 / 3)
    return metrics


@pytest.mark.parametrize("make", [fresh, used])
def test_the_series_pass_promtool(make: Callable[[], Metrics]) -> None:
    done = promtool("check", "metrics", stdin=make().text())
    assert (done.returncode, output_of(done)) == (0, "")


async def test_the_textfile_passes_promtool(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    await Textfile(await asyncio.to_thread(used), str(path)).write()
    done = promtool("check", "metrics", stdin=path.read_bytes())
    assert (done.returncode, output_of(done)) == (0, "")


def test_promtool_detects_a_bad_series_name() -> None:
    done = promtool("check", "metrics", stdin=used().text().replace(b"kickwatch_trials_total", b"kickwatch_trials"))
    assert done.returncode != 0
    assert "_total" in output_of(done)


def test_the_rules_pass_promtool() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, output_of(done)


def test_the_scrape_configuration_is_valid() -> None:
    done = promtool("check", "config", DEPLOY / "scrape.yml")
    assert done.returncode == 0, output_of(done)
    assert yaml.safe_load((DEPLOY / "scrape.yml").read_text()).keys() == {"scrape_configs"}  # to be included


@pytest.mark.parametrize("file", TESTS)
def test_the_rules_pass_their_tests(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, output_of(done)


def only(name: str) -> str:
    """Only the tests with `name` in their name: each wrong rule must be detected by its own test."""
    for file in TESTS:
        tests = yaml.safe_load(file.read_text())
        found = [test for test in tests["tests"] if name in test["name"]]
        if found:
            return yaml.safe_dump(tests | {"tests": found})
    raise AssertionError(name)


RELEASE, BACK, UNWATCHED = "no node has proof", "its way back", "nobody watches"
STREAM, BLIND, TRIALS, FLEET, TURNOVER = "every other", "blind for", "no trials", "no single node", "come and go"
UNDECIDED, STALE, ELSEWHERE, FAILED, PAUSED = "undecided", "stale", "elsewhere", "containers that", "pauses for a day"


@pytest.mark.long
@pytest.mark.parametrize(
    ("test", "was", "becomes"),
    [
        ("broadcasting one", 'condition="broadcasting"', 'condition="quiet"'),
        ("waits for slab", '{condition="broadcasting"}) == 1', "{}) == 1"),
        (STREAM, '"attributed|burst|signature|canary"', '"burst"'),
        ("waits for slab", 'condition="contended"', 'condition="broadcasting"'),
        (STREAM, '"contention|contention_excess|contention_pairs"', '"contention|contention_pairs"'),
        (STREAM, '"contention|contention_excess|contention_pairs"', '"contention|contention_excess"'),
        (
            STREAM,
            '(instance:kickwatch_stream_alerted:release{stream=~"elsewhere|elsewhere_pairs"})',
            '(instance:kickwatch_stream_alerted:release{stream="elsewhere"})',
        ),
        (STREAM, '{stream="isolation"}', "{}"),
        (STREAM, "max without (stream)", "max by (job, instance)"),
        (STREAM, '{stream="destroy"}', "{}"),
        (STREAM, '"percpu_balance|bpf|sweeps"', '"percpu_balance|bpf"'),
        (STREAM, "kickwatch_regressed_cells > 0", "kickwatch_regressed_cells > 2"),
        (
            ELSEWHERE,
            'unless on (job, instance) kickwatch_stream_alerted{stream=~"elsewhere|elsewhere_pairs"} == 1',
            "",
        ),
        (
            ELSEWHERE,
            'instance) kickwatch_stream_alerted{stream=~"elsewhere|elsewhere_pairs"} == 1',
            'instance) kickwatch_stream_alerted{stream="elsewhere"} == 1',
        ),
        (ELSEWHERE, "unless on (job, instance) kickwatch_trials_off == 1", ""),
        (ELSEWHERE, "for: 6h", "for: 5h"),
        (FAILED, "containers_failed", "stale"),
        (FAILED, "severity: critical", "severity: warning"),
        (FAILED, "|stale|broadcasts_elsewhere", "|containers_failed"),
        (FAILED, "unless on (job, instance) kickwatch_trials_off == 1", ""),
        (BLIND, "unless on (job, instance) kickwatch_trials_off == 1", ""),
        (BLIND, "unless on (job, instance) kickwatch_control_passed == 0", ""),
        (BLIND, "|disturbed|other", "|disturbed|other|insufficient_evidence"),
        (BLIND, "for: 1h", "for: 0s"),
        (BLIND, "kickwatch_control_passed == 0", "kickwatch_control_passed == 1"),
        (UNDECIDED, "for: 6h", "for: 4h"),
        (
            UNDECIDED,
            'unless on (job, instance) kickwatch_unknown{reason!~"insufficient_evidence|too_few_containers"} == 1',
            "",
        ),
        (UNDECIDED, "unless on (job, instance) kickwatch_control_passed == 0", ""),
        (UNDECIDED, 'unless on (job, instance) kickwatch_trouble{kind="engine"} == 1', ""),
        (UNDECIDED, "unless on (job, instance) avg_over_time(instance:kickwatch_guard_paused:max[6h]) > 0.5", ""),
        (UNDECIDED, "max[6h]) > 0.5", "max[6h]) > 0"),
        (UNDECIDED, "unless on (job, instance) max_over_time(kickwatch_trials_off[6h]) == 1", ""),
        (TRIALS, '{verdict!="void"}', ""),
        (TRIALS, '{verdict!="void"}', '{verdict!="unknown"}'),
        (TRIALS, "and on (job, instance) (kickwatch_build_info offset 2h)", ""),
        (TRIALS, "unless on (job, instance) max_over_time(kickwatch_trials_off[2h]) == 1", ""),
        (TRIALS, "unless on (job, instance) avg_over_time(instance:kickwatch_guard_paused:max[2h]) > 0.5", ""),
        (TRIALS, "max[2h]) > 0.5", "max[2h]) > 0"),
        (TRIALS, 'unless on (job, instance) kickwatch_trouble{kind="engine"} == 1', ""),
        (TRIALS, "for: 15m", "for: 5m"),
        (STALE, "EngineLost|", ""),
        (STALE, "KickwatchNoTrials|", ""),
        (PAUSED, "|KickwatchPaused", ""),
        (STALE, "unless on (job, instance) kickwatch_trials_off == 1", ""),
        (STALE, "for: 15m", "for: 0s"),
        ("forgotten", "for: 6d", "for: 5d"),
        ("forgotten", 'kickwatch_trials_off{reason="drained"}', "kickwatch_trials_off"),
        (PAUSED, "max[1d]) > 0.9", "max[1d]) > 0.4"),
        (PAUSED, "max[1d]) > 0.9", "max[1d]) >= 1"),
        (PAUSED, "max without (reason) (kickwatch_guard_paused)", 'kickwatch_guard_paused{reason="load"}'),
        (PAUSED, "and on (job, instance) (kickwatch_build_info offset 1d)", ""),
        (PAUSED, "and on (job, instance) kickwatch_build_info\n", "\n"),
        (PAUSED, "unless on (job, instance) kickwatch_trials_off == 1", ""),
        ("cannot be written", '"history|budget|textfile"', '"history"'),
        ("cannot be written", "for: 15m", "for: 0s"),
        ("does not answer", 'up{job="kickwatch"} == 0', "up == 0"),
        ("does not answer", "for: 5m", "for: 0s"),
        ("does not answer", '{file=~"(.*/)?kickwatch[^/]*[.]prom"}', ""),
        ("last node disappears", "absent(kickwatch_build_info)", "absent(up)"),
        (
            FLEET,
            "/ scalar(fleet:kickwatch_e_process:seen)",
            "/ scalar(count(count by (instance) (kickwatch_e_process)))",
        ),
        (FLEET, "sum by (stream)", "max by (stream)"),
        (FLEET, "or last_over_time(instance:kickwatch_e_process:seen[6h]) == (time() - time() % 7776000)", ""),
        (
            FLEET,
            "and ignoring (stream) (kickwatch_e_process_start_timestamp_seconds > (time() - time() % 7776000))",
            "",
        ),
        (FLEET, "mean >= 1e6", "mean >= 1e5"),
        (FLEET, "mean >= 1e6", "mean >= 1e9"),
        (TURNOVER, "/ scalar(fleet:kickwatch_e_process:seen)", "/ 2"),
        (TURNOVER, "or last_over_time(instance:kickwatch_e_process:seen[6h]) == (time() - time() % 7776000)", ""),
        (TURNOVER, "count_values", "count"),
        (FLEET, "and on (stream) stream:kickwatch_evidence:max >= 1e4", ""),
        (RELEASE, "avg by (release) (release_stream", "max by (release) (release_stream"),
        (RELEASE, "mean >= 1e6", "mean >= 1e7"),
        (RELEASE, "/ on (release) group_left () release:kickwatch_e_process:seen", "/ 2"),
        (RELEASE, 'max{stream=~"attributed|burst|signature|canary"}) >= 1e4', "max) >= 1e4"),
        (RELEASE, "and on (release, stream) release_stream:kickwatch_evidence:max >= 1e4", ""),
        (RELEASE, '{stream!~"attributed|burst|signature|canary"} >= 1e6', "{} >= 1e6"),
        (BACK, "and ignoring (release) count without (release) (kickwatch_kernel_info) == 1", ""),
        (BACK, "or last_over_time(instance:kickwatch_e_process:seen[6h]) == (time() - time() % 7776000)", ""),
        (BACK, "(kickwatch_stream_alerted == 1) * ignoring (stream, release) group_left (release)", "0 *"),
        (UNWATCHED, "ratio < 0.5", "ratio < 0.7"),
        (UNWATCHED, 'release!="unknown"', 'release!=""'),
    ],
)
def test_the_tests_detect_a_wrong_rule(
    tested: Callable[[str, str, str], Future[Tested]], test: str, was: str, becomes: str
) -> None:
    checked, done = tested(test, was, becomes).result()
    assert checked.returncode == 0, "the changed rule must still be valid"
    assert done.returncode != 0
    assert "exp:" in output_of(done) or "found duplicate series" in output_of(done), output_of(done)


@pytest.fixture(scope="module")
def tested(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str, str], Future[Tested]]]:
    """The results of the selected wrong rules. All are started at once, because each takes a CPU for seconds."""
    text, root = RULES.read_text(), tmp_path_factory.mktemp("wrong")

    def run(test: str, was: str, becomes: str) -> Tested:
        assert was in text
        wrong = text.replace(was, becomes)
        if "count_values" in was:
            wrong = wrong.replace('("since", ', "(")
        directory = Path(tempfile.mkdtemp(dir=root))
        (directory / "rules.yml").write_text(wrong)
        (directory / "tests.yml").write_text(only(test))
        return promtool("check", "rules", directory / "rules.yml"), promtool("test", "rules", directory / "tests.yml")

    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    chosen = [one for one in params if {"test", "was", "becomes"} <= one.keys()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = {(one["test"], one["was"], one["becomes"]): pool.submit(run, **one) for one in chosen}
        yield lambda *params: results[params]
        pool.shutdown(cancel_futures=True)


TURN = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: kickwatch_e_process_start_timestamp_seconds{instance="old"}
        values: "60x200"
      - series: kickwatch_e_process_start_timestamp_seconds{instance="goes"}
        values: "60x60 _x140"
      - series: kickwatch_e_process_start_timestamp_seconds{instance="goes on"}
        values: "60x124 7500x76"
      - series: kickwatch_e_process{instance="old", stream="burst"}
        values: "5e6x200"
      - series: kickwatch_e_process{instance="goes", stream="burst"}
        values: "1x60 _x140"
      - series: kickwatch_e_process{instance="goes on", stream="burst"}
        values: "4e6x124 0.5x76"
    promql_expr_test:
      - expr: sum(fleet:kickwatch_e_process:seen)
        eval_time: 116m
        exp_samples: [{labels: "{}", value: 3}]
      - expr: sum(stream:kickwatch_e_process:mean)
        eval_time: 116m
        exp_samples: [{labels: "{}", value: 3e6}]
      - {expr: "fleet:kickwatch_e_process:seen", eval_time: 122m, exp_samples: []}
      - expr: sum(fleet:kickwatch_e_process:seen)
        eval_time: 150m
        exp_samples: [{labels: "{}", value: 1}]
      - expr: sum(stream:kickwatch_e_process:mean)
        eval_time: 150m
        exp_samples: [{labels: "{}", value: 0.5}]
"""


def test_after_the_end_of_an_epoch_its_values_do_not_count(tmp_path: Path) -> None:
    """With epochs of two hours instead of 90 days; `old` has no trial in the second one."""
    rules = RULES.read_text()
    assert rules.count("time() % 7776000") == 6
    (tmp_path / "rules.yml").write_text(rules.replace("time() % 7776000", "time() % 7200"))
    (tmp_path / "tests.yml").write_text(TURN)
    done = promtool("test", "rules", tmp_path / "tests.yml")
    assert done.returncode == 0, output_of(done)


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    expected: dict[str, set[bool]] = {}
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    for expectation in (one for test in tests for one in test["promql_expr_test"]):
        for name in re.findall(r'alertname="(\w+)"', expectation["expr"]):
            expected.setdefault(name, set()).add(bool(expectation["exp_samples"]))
    assert expected == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_alert_has_all_annotations_and_a_severity() -> None:
    for rule in alerts():
        annotations = rule["annotations"]
        assert annotations.keys() == {"runbook_url", "summary", "description", "confirm", "action"}, rule["alert"]
        assert annotations["runbook_url"] == BASE + f"operations.html#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_rules_query_series_that_exist() -> None:
    families = text_string_to_metric_families(used().text().decode())
    shown = {sample.name for family in families for sample in family.samples}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    texts = [text for rule in rules() for text in (rule["expr"], *rule.get("annotations", {}).values())]
    names = re.compile(r"(?:\w+:)?kickwatch_[a-z0-9_:]+|\bup\b|node_\w+")
    asked = {name for text in texts for name in names.findall(text)}
    assert len(asked) > 10
    assert asked - FOREIGN <= shown | recorded


def test_a_shard_sends_what_the_rules_ask_for() -> None:
    """Of a node at most 120 series, as docs/explanation/scale.md counts them."""
    done = promtool("check", "config", DEPLOY / "shard.yml")
    assert done.returncode == 0, output_of(done)
    (keep,) = yaml.safe_load((DEPLOY / "shard.yml").read_text())["remote_write"][0]["write_relabel_configs"]
    names = re.compile(r"(?<![:\w])kickwatch_[a-z0-9_]+(?![:\w])")
    asked = {name for rule in rules() for name in names.findall(rule["expr"])}
    queried = {name for rule in alerts() for name in names.findall(rule["annotations"]["description"])}
    assert len(asked) > 10
    assert {name for name in asked | queried if not re.fullmatch(keep["regex"], name)} == set()
    families = text_string_to_metric_families(used().text().decode())
    sent = [sample for family in families for sample in family.samples if re.fullmatch(keep["regex"], sample.name)]
    cells = sum(sample.name == "kickwatch_bill_broadcasts_per_container" for sample in sent)
    assert len(sent) - cells + (MOST_CELLS + 1) + len(["up"]) <= 120
