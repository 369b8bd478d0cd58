"""Metrics whose address is somebody else's: said, waited for, served once it is free."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

import kickwatch.metrics.registry
import kickwatch.metrics.serve  # noqa: F401 -- loaded where used: a blocking read in the event loop of a test
from kickwatch import telemetry as module
from kickwatch.config import MetricsConfig
from kickwatch.errors import AddressTakenError, ConfigError
from kickwatch.telemetry import Telemetry


def watch() -> Any:
    """What a beat asks of the watch."""
    evidence = SimpleNamespace(monitor=SimpleNamespace(figures=lambda _: {}), state=None)
    eyes = SimpleNamespace(control=SimpleNamespace(passed=True))
    return SimpleNamespace(evidence=evidence, eyes=eyes, condition="unknown")


async def test_a_taken_address_is_said_once_and_served_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.0)
    telemetry = Telemetry(SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(telemetry, "_evidence_of", (seen := watch()).evidence)
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as logs:
        config = MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        await telemetry.begin(config)
        await telemetry.beat(seen, None)
        await telemetry.beat(seen, None)
        assert telemetry._server is None
    with structlog.testing.capture_logs() as later:
        await telemetry.beat(seen, None)
        await telemetry.beat(seen, None)
    assert telemetry._server is not None
    reader, writer = await asyncio.open_connection(*telemetry._server.address)
    writer.close()
    await telemetry.close()
    assert reader is not None
    assert [log["event"] for log in (*logs, *later)] == ["kickwatch.note"] * 2
    assert "it is tried again" in logs[0]["what"]
    assert "is free now" in later[0]["what"]


async def test_a_reload_to_a_taken_address_is_refused() -> None:
    telemetry = Telemetry(SimpleNamespace())  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressTakenError):
        await telemetry.open(MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}"))


async def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.listen"):
        await Telemetry(SimpleNamespace()).begin(MetricsConfig(listen="127.0.0.1:x"))  # type: ignore[arg-type]
