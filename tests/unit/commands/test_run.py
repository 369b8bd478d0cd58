"""How `kickwatch run` reports that it ends by an error."""

import sys
from types import ModuleType

import pytest
import structlog

from kickwatch.commands import run as command
from kickwatch.errors import ConfigError


@pytest.mark.parametrize("journal", [True, False])
def test_an_end_by_an_error_is_a_record_of_the_journal_alone(journal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[command.__name__]
    monkeypatch.setattr(module, "reaches_journal", lambda _: journal)
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError), module._failures_logged():
        raise ConfigError("the key x is wrong", "fix it")
    records = [(log["event"], log["log_level"], log["what"], log["remedy"]) for log in logs]
    assert records == ([("kickwatch.failed", "critical", "the key x is wrong", "fix it")] if journal else [])
