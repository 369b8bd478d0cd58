"""Metrics whose address is somebody else's: said, waited for, served once it is free."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

import kickwatch.outlets.metrics.registry
import kickwatch.outlets.metrics.serve  # noqa: F401 -- loaded where used: a blocking read in the event loop of a test
from kickwatch.configuration.types import MetricsConfig
from kickwatch.detect.state import State
from kickwatch.errors import AddressTakenError, ConfigError
from kickwatch.model import AlarmKind
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.observatory import Sample
from kickwatch.service import telemetry as module
from kickwatch.service.telemetry import Telemetry


def watch() -> Any:
    """What a beat asks of the watch."""
    evidence = SimpleNamespace(monitor=SimpleNamespace(figures=lambda _: {}), state=State(), kept=True)
    armed = SimpleNamespace(control=SimpleNamespace(passed=True))
    believed = {"condition": "unknown", "reasons": ("stale",), "verdict_age_s": 90_000.0, "more_containers": None}
    return SimpleNamespace(evidence=evidence, armed=armed, **believed)


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
    (begun,), (ended,) = logs, later
    assert (begun["event"], begun["log_level"]) == ("kickwatch.metrics_unserved", "warning")
    assert "metrics.listen" in begun["what"]
    assert (ended["event"], ended["log_level"], ended["listen"]) == ("kickwatch.metrics_served", "info", config.listen)


async def served(telemetry: Telemetry, *names: str) -> list[float]:
    """The series of these names, with their labels, as a scrape has them."""
    assert telemetry._metrics is not None
    text = (await asyncio.to_thread(telemetry._metrics.text)).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return [float(lines[name]) for name in names]


class TheObservatory:
    """Stands in for the armed observers, which see nothing."""

    def __init__(self) -> None:
        self.contention = None
        self.waits_known = False

    async def sample(self) -> Sample:
        return Sample(1, InterruptSample((), {}), None, None)


async def test_a_textfile_needs_no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is written while the address is taken, and its own trouble comes and goes."""
    monkeypatch.setattr(module, "_TEXTFILE_EVERY_S", 0.0)
    path = tmp_path / "node" / "kickwatch.prom"
    telemetry = Telemetry(TheObservatory())  # type: ignore[arg-type]
    seen = watch()
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as logs:
        await telemetry.begin(MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}", textfile=str(path)))
        await telemetry.beat(seen, None)
        await telemetry.beat(seen, None)
        assert await served(telemetry, 'kickwatch_trouble{kind="textfile"}') == [1.0]
        path.parent.mkdir()
        await telemetry.beat(seen, None)
        await telemetry.beat(seen, None)
        assert await served(telemetry, 'kickwatch_trouble{kind="textfile"}') == [0.0]
    assert 'kickwatch_unknown{reason="stale"} 1.0' in path.read_text()
    assert [log["event"] for log in logs] == [
        "kickwatch.metrics_unserved",
        "kickwatch.textfile_unwritten",
        "kickwatch.textfile_written",
    ]


async def test_a_scrape_in_mid_trial_has_what_the_daemon_believes_now() -> None:
    telemetry = Telemetry(TheObservatory())  # type: ignore[arg-type]
    await telemetry.open(MetricsConfig(listen="127.0.0.1:0"))
    names = (
        'kickwatch_unknown{reason="stale"}',
        'kickwatch_unknown{reason="containers_failed"}',
        "kickwatch_verdict_age_seconds",
        'kickwatch_trouble{kind="engine"}',
        'kickwatch_trouble{kind="history"}',
        'kickwatch_guard_paused{reason="load"}',
    )
    try:
        seen = watch()
        telemetry.troubles(engine=True, budget=False)
        telemetry.guarded(("load",))
        await telemetry.beat(seen, None)
        assert await served(telemetry, *names) == [1.0, 0.0, 90_000.0, 1.0, 0.0, 1.0]
        seen.reasons, seen.verdict_age_s, seen.evidence.kept = ("containers_failed",), 1.0, False
        telemetry.troubles(engine=False, budget=False)
        telemetry.guarded(())
        await telemetry.refresh()
        assert await served(telemetry, *names) == [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    finally:
        await telemetry.close()


async def test_regressions_are_counted_as_they_stand() -> None:
    telemetry = Telemetry(TheObservatory())  # type: ignore[arg-type]
    await telemetry.open(MetricsConfig(listen="127.0.0.1:0"))
    try:
        seen = watch()
        cells = ("do_sync_core memcg create", "rcu_exp_handler rcu other")
        seen.evidence.state = SimpleNamespace(alerted={AlarmKind.REGRESSED: cells}, published_since_unix_s=7.9)
        await telemetry.beat(seen, None)
        names = ("kickwatch_regressed_cells", "kickwatch_e_process_start_timestamp_seconds")
        assert await served(telemetry, *names) == [2.0, 7.0]
    finally:
        await telemetry.close()


async def test_a_reload_to_a_taken_address_is_refused() -> None:
    telemetry = Telemetry(SimpleNamespace())  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressTakenError):
        await telemetry.open(MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}"))


async def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.listen"):
        await Telemetry(SimpleNamespace()).begin(MetricsConfig(listen="127.0.0.1:x"))  # type: ignore[arg-type]
