"""An engine that is gone is said once, and its return once; tries become rarer, up to a minute."""

import pytest
import structlog

from kickwatch.errors import EngineAbsentError, EngineError
from kickwatch.service.engine_backoff import Patience

GONE = EngineAbsentError("no container engine answers", "start it")


async def test_gone_and_back_are_said_once_each() -> None:
    patience = Patience()
    with structlog.testing.capture_logs() as logs:
        patience.found("docker 28")  # at the start nothing was missed
        pauses = [patience.pause_s(GONE) for _ in range(9)]
        patience.lost(GONE)
        patience.found("docker 28")
        patience.found("docker 28")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [log["event"] for log in logs] == ["kickwatch.engine_lost", "kickwatch.engine_found"]
    assert (logs[0]["what"], logs[0]["remedy"], logs[0]["retry_s"]) == ("no container engine answers", "start it", 1.0)
    assert patience.pause_s(GONE) == 1


async def test_another_engine_is_said_without_a_loss() -> None:
    patience = Patience(changed=True)
    with structlog.testing.capture_logs() as logs:
        patience.found("docker 28")
        patience.found("docker 28")
    assert [(log["event"], log["lost_s"]) for log in logs] == [("kickwatch.engine_found", 0.0)]


@pytest.mark.parametrize("error", [EngineError("the image is gone", "pull it"), OSError(28, "No space left on device")])
async def test_what_else_hinders_is_said_each_time(error: EngineError | OSError) -> None:
    patience = Patience()
    with structlog.testing.capture_logs() as logs:
        patience.pause_s(error)
        patience.pause_s(error)
    assert [(log["event"], log["retry_s"]) for log in logs] == [
        ("kickwatch.trial_failed", 1),
        ("kickwatch.trial_failed", 2),
    ]
    assert all(log["what"] and log["remedy"] for log in logs)
