"""A lost engine is reported once, and its return once; the pauses between tries double, up to a minute."""

import pytest

from fake_daemon import DOCKER, GONE, Recorder
from kickwatch.errors import EngineError, ObserveError
from kickwatch.outlets.events import EngineFound, EngineLost, SessionFailed
from kickwatch.outlets.outlet import Outlets
from kickwatch.service.engine_backoff import EngineBackoff, error_fields

NAME = str(DOCKER)


class Clock:
    """A clock of the test's."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def backoff_of(recorder: Recorder, clock: Clock | None = None) -> EngineBackoff:
    return EngineBackoff(Outlets([recorder]).report, clock or Clock())


async def test_lost_and_found_are_reported_once_each() -> None:
    recorder, clock = Recorder(), Clock()
    backoff = backoff_of(recorder, clock)
    await backoff.found(NAME)  # at the start nothing was lost
    pauses = [await backoff.failed(GONE) for _ in range(9)]
    assert backoff.waiting
    await backoff.lost(GONE)
    clock.now_s = 303.04
    await backoff.found(NAME)
    await backoff.found(NAME)
    assert not backoff.waiting
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert recorder.events == [EngineLost(GONE.what, GONE.remedy, 1.0), EngineFound(NAME, 303.0)]
    assert await backoff.failed(GONE) == 1


async def test_another_engine_is_reported_without_a_loss() -> None:
    recorder = Recorder()
    backoff = backoff_of(recorder)
    backoff.changed = True
    await backoff.found(NAME)
    await backoff.found(NAME)
    assert recorder.events == [EngineFound(NAME, 0.0)]


@pytest.mark.parametrize("error", [EngineError("the image is gone", "pull it"), OSError(28, "No space left on device")])
async def test_any_other_error_is_reported_each_time(error: EngineError | OSError) -> None:
    recorder = Recorder()
    backoff = backoff_of(recorder)
    assert [await backoff.failed(error) for _ in range(2)] == [1, 2]
    assert not backoff.waiting
    assert [event.retry_s for event in recorder.of(SessionFailed)] == [1, 2]
    assert all(event.what and event.remedy for event in recorder.of(SessionFailed))


def test_an_error_without_a_remedy_gets_one() -> None:
    fields = error_fields(OSError(28, "No space left on device"))
    assert fields == {"what": "[Errno 28] No space left on device", "remedy": "kickwatch tries again"}


async def test_errors_far_apart_wait_no_longer_each_time() -> None:
    """Passive mode has no engine to be found again."""
    backoff = backoff_of(Recorder())
    error = ObserveError("the kernel refused a reading")
    for _ in range(9):
        assert await backoff.failed(error) == 1
        backoff.works()
