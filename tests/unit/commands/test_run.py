"""How `kickwatch run` reports that it ends by an error."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from click.testing import CliRunner

from kickwatch.cli import cli
from kickwatch.commands import common
from kickwatch.commands import run as command
from kickwatch.configuration.loading import Loaded
from kickwatch.errors import ConfigError, KickwatchError

PASSIVE = "[workload]\nenabled = false\n"


@pytest.mark.parametrize("journal", [True, False])
def test_an_end_by_an_error_is_a_record_of_the_journal_alone(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[command.__name__]
    monkeypatch.setattr(module, "reaches_journal", lambda _: journal)
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_logged():
        raise ConfigError("the key x is wrong", "fix it")
    records = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert records == ([("kickwatch.failed", "critical", "the key x is wrong", "fix it")] if journal else [])


def source_of_a_daemon(default: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Loaded]:
    """What a reload of `kickwatch run`, started without `--config`, reads."""
    sources: list[Callable[[], Loaded]] = []

    async def run_daemon(source: Callable[[], Loaded], _trials: int | None) -> None:
        sources.append(source)

    monkeypatch.setattr(common, "DEFAULT_CONFIG", default)
    monkeypatch.setattr("kickwatch.service.daemon.run_daemon", run_daemon)
    monkeypatch.setattr(sys.modules[command.__name__], "keep_malloc_small", lambda: None)
    assert CliRunner().invoke(command.daemon, []).exit_code == 0
    (source,) = sources
    return source


def test_a_reload_reads_the_file_of_the_start_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the defaults instead, a passive node whose file is being replaced would start containers."""
    default = tmp_path / "kickwatch.toml"
    default.write_text(PASSIVE)
    reload = source_of_a_daemon(default, monkeypatch)
    assert not reload().config.workload.enabled
    default.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        reload()
    default.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        reload()


@pytest.mark.parametrize("first", [PASSIVE, "[workload]\nenabl"])
def test_a_file_that_came_after_the_start_is_the_file_from_then_on(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it could not be used: its removal is not a wish for the defaults."""
    default = tmp_path / "kickwatch.toml"
    reload = source_of_a_daemon(default, monkeypatch)
    assert reload().config.workload.enabled
    default.write_text(first)
    with suppress(ConfigError):
        assert not reload().config.workload.enabled
    default.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        reload()


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize(("content", "why"), [(None, "cannot be read (No such file or directory)"), ("", "is empty")])
def test_a_file_that_is_absent_at_the_start_ends_with_a_status_after_which_systemd_tries_again(
    tmp_path: Path, content: str | None, why: str, *, unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status 2 a start while the file was being replaced left the service down for good."""
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    if unit:
        monkeypatch.setenv("INVOCATION_ID", "5f8d")
    file = tmp_path / "kickwatch.toml"
    if content is not None:
        file.write_text(content)
    done = CliRunner().invoke(command.daemon, ["--config", str(file)])
    assert isinstance(done.exception, KickwatchError)
    assert done.exception.exit_status == 1
    assert str(done.exception).startswith(f"{file} {why}: put the file back")
    assert str(done.exception).endswith("systemd tries again in a minute") is unit
    for other in ("trial", "doctor", "check-config"):
        arguments = [str(file)] if other == "check-config" else ["--config", str(file)]
        assert getattr(CliRunner().invoke(cli, [other, *arguments]).exception, "exit_status", None) == 2


def test_a_file_that_cannot_be_used_keeps_the_status_after_which_systemd_does_not(tmp_path: Path) -> None:
    """A half-written file too: it looks like an operator's error."""
    half = tmp_path / "kickwatch.toml"
    half.write_text("[workload]\nenabl")
    for path in (tmp_path, half):
        done = CliRunner().invoke(command.daemon, ["--config", str(path)])
        assert getattr(done.exception, "exit_status", None) == 2


def test_the_unit_names_its_file() -> None:
    unit = Path(__file__).parents[3] / "systemd/kickwatch.service"
    assert "ExecStart=/opt/kickwatch/bin/kickwatch run --config /etc/kickwatch/kickwatch.toml" in unit.read_text()
