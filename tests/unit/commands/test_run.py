"""How `kickwatch run` reports that it ends by an error."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from click.testing import CliRunner

from kickwatch.commands import common
from kickwatch.commands import run as command
from kickwatch.configuration.loading import Loaded
from kickwatch.errors import ConfigError


@pytest.mark.parametrize("journal", [True, False])
def test_an_end_by_an_error_is_a_record_of_the_journal_alone(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[command.__name__]
    monkeypatch.setattr(module, "reaches_journal", lambda _: journal)
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_logged():
        raise ConfigError("the key x is wrong", "fix it")
    records = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert records == ([("kickwatch.failed", "critical", "the key x is wrong", "fix it")] if journal else [])


def test_a_reload_reads_the_file_of_the_start_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the defaults instead, a passive node whose file is being replaced would start containers."""
    default = tmp_path / "kickwatch.toml"
    default.write_text("[workload]\nenabled = false\n")
    sources: list[Callable[[], Loaded]] = []

    async def run_daemon(source: Callable[[], Loaded], _trials: int | None) -> None:
        sources.append(source)

    monkeypatch.setattr(common, "DEFAULT_CONFIG", default)
    monkeypatch.setattr("kickwatch.service.daemon.run_daemon", run_daemon)
    monkeypatch.setattr(sys.modules[command.__name__], "keep_malloc_small", lambda: None)
    assert CliRunner().invoke(command.daemon, []).exit_code == 0
    (reload,) = sources
    assert not reload().config.workload.enabled
    default.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        reload()


def test_the_unit_names_its_file() -> None:
    unit = Path(__file__).parents[3] / "systemd/kickwatch.service"
    assert "ExecStart=/opt/kickwatch/bin/kickwatch run --config /etc/kickwatch/kickwatch.toml" in unit.read_text()
