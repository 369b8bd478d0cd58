"""What of the daemon needs no engine: how long it may be without a step, and how its end by an error is told."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from click.testing import CliRunner
from msgspec.structs import replace

from kickwatch.cli import cli
from kickwatch.commands import run as command
from kickwatch.config import Config, EngineConfig, GuardConfig, WorkloadConfig
from kickwatch.errors import ConfigError
from kickwatch.service import longest_step_s


def test_the_watchdog_outlasts_every_lawful_wait() -> None:
    usual = Config()
    assert longest_step_s(usual) <= 180  # WatchdogSec= of the unit
    slow = (
        replace(usual, guard=GuardConfig(poll_s=600.0)),
        replace(usual, workload=WorkloadConfig(rate_hz=0.002)),
        replace(usual, engine=EngineConfig(timeout_s=300.0)),
    )
    for config, least_s in zip(slow, (600.0, 500.0, 600.0), strict=True):
        assert longest_step_s(config) > least_s


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("workload.containers_per_trial = 100", "containers_per_trial"),
        ('metrics.listen = "999.1.1.1:99999"', "metrics.listen"),
    ],
)
def test_what_the_daemon_would_refuse_is_not_valid(tmp_path: Path, line: str, key: str) -> None:
    file = tmp_path / "kickwatch.toml"
    file.write_text(line + "\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["check-config", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert key in str(result.exception)


@pytest.mark.parametrize("journal", [True, False])
def test_an_end_by_an_error_is_a_record_of_the_journal_alone(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[command.__name__]
    monkeypatch.setattr(module, "reaches_journal", lambda _: journal)
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_told():
        raise ConfigError("the key x is wrong", "mend it")
    told = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert told == ([("kickwatch.failed", "critical", "the key x is wrong", "mend it")] if journal else [])
