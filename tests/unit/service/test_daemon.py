"""How the daemon ends: by itself, by a signal, by an error. The lock and systemd's socket are released each time."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kickwatch.configuration.loading import Loaded
from kickwatch.configuration.types import Config
from kickwatch.errors import EngineAbsentError
from kickwatch.node.lock import NodeLock
from kickwatch.service import daemon as module
from kickwatch.service.daemon import run_daemon

Serve = Callable[..., Awaitable[None]]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setattr(module, "NodeLock", lambda: NodeLock(tmp_path / "lock"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


async def run(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """The daemon with `serve` in place of what needs a node."""
    monkeypatch.setattr(module, "_serve", serve)
    await asyncio.wait_for(run_daemon(lambda: Loaded(Config()), None), 60)


def lock_is_free(path: Path) -> bool:
    with NodeLock(path):
        return True


async def test_a_daemon_that_has_made_its_trials_has_stopped(
    monkeypatch: pytest.MonkeyPatch, logs: list[Any], tmp_path: Path
) -> None:
    async def serve(*_: object) -> None:
        await asyncio.sleep(0)

    await run(monkeypatch, serve)
    assert [log["event"] for log in logs] == ["kickwatch.stopped"]
    assert await asyncio.to_thread(lock_is_free, tmp_path / "lock")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_after_its_clean_up(
    monkeypatch: pytest.MonkeyPatch, logs: list[Any], number: signal.Signals
) -> None:
    cleaned: list[bool] = []

    async def serve(*parts: Any) -> None:
        shutdown = parts[3]
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(shutdown.begun)

    await run(monkeypatch, serve)
    assert cleaned == [True]
    assert [log["event"] for log in logs] == ["kickwatch.stopped"]


async def test_an_end_that_nothing_asked_for_is_an_error(monkeypatch: pytest.MonkeyPatch, logs: list[Any]) -> None:
    async def serve(*_: object) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled without a signal"):
        await run(monkeypatch, serve)
    assert logs == []


async def test_an_error_ends_it_without_the_record_of_a_normal_end(
    monkeypatch: pytest.MonkeyPatch, logs: list[Any], tmp_path: Path
) -> None:
    async def serve(*_: object) -> None:
        raise EngineAbsentError("no engine answers", "start it")

    with pytest.raises(EngineAbsentError):
        await run(monkeypatch, serve)
    assert logs == []
    assert await asyncio.to_thread(lock_is_free, tmp_path / "lock")
