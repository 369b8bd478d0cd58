"""`kickwatch run` before and after the daemon: what check-config refuses, and how an end by an error is reported."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from click.testing import CliRunner

from kickwatch.cli import cli
from kickwatch.commands import run as command
from kickwatch.errors import ConfigError


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
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_logged():
        raise ConfigError("the key x is wrong", "fix it")
    records = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert records == ([("kickwatch.failed", "critical", "the key x is wrong", "fix it")] if journal else [])
