"""An engine that is gone is said once, and its return once; tries become rarer, up to a minute."""

import pytest
import structlog

from kickwatch.errors import EngineAbsentError, EngineError
from kickwatch.service.engine_backoff import EngineBackoff

GONE = EngineAbsentError("no container engine answers", "start it")


async def test_gone_and_back_are_said_once_each() -> None:
    backoff = EngineBackoff()
    with structlog.testing.capture_logs() as logs:
        backoff.found("docker 28")  # at the start nothing was missed
        pauses = [backoff.pause_s(GONE) for _ in range(9)]
        backoff.lost(GONE)
        backoff.found("docker 28")
        backoff.found("docker 28")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [log["event"] for log in logs] == ["kickwatch.engine_lost", "kickwatch.engine_found"]
    assert (logs[0]["what"], logs[0]["remedy"], logs[0]["retry_s"]) == ("no container engine answers", "start it", 1.0)
    assert backoff.pause_s(GONE) == 1


async def test_another_engine_is_said_without_a_loss() -> None:
    backoff = EngineBackoff(changed=True)
    with structlog.testing.capture_logs() as logs:
        backoff.found("docker 28")
        backoff.found("docker 28")
    assert [(log["event"], log["lost_s"]) for log in logs] == [("kickwatch.engine_found", 0.0)]


@pytest.mark.parametrize("error", [EngineError("the image is gone", "pull it"), OSError(28, "No space left on device")])
async def test_what_else_hinders_is_said_each_time(error: EngineError | OSError) -> None:
    backoff = EngineBackoff()
    with structlog.testing.capture_logs() as logs:
        backoff.pause_s(error)
        backoff.pause_s(error)
    assert [(log["event"], log["retry_s"]) for log in logs] == [
        ("kickwatch.trial_failed", 1),
        ("kickwatch.trial_failed", 2),
    ]
    assert all(log["what"] and log["remedy"] for log in logs)
