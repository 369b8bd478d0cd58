"""Prometheus as an outlet: what each event does to the series, an address in use, the textfile, reloads."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from msgspec.structs import replace

import kickwatch.outlets.metrics.registry  # noqa: F401 -- loaded where used: a blocking read in the loop of a test
from beliefs import believing
from builders import trial
from kickwatch.configuration.types import MetricsConfig
from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.errors import AddressUnusableError, ConfigError, ObserveError
from kickwatch.model import AlarmKind, Condition, Verdict
from kickwatch.node.pressure import Cause
from kickwatch.outlets import events
from kickwatch.outlets.belief import Belief
from kickwatch.outlets.metrics import outlet as module
from kickwatch.outlets.metrics import textfile
from kickwatch.outlets.metrics.outlet import PrometheusOutlet
from kickwatch.outlets.metrics.serve import Server
from kickwatch.outlets.metrics.textfile import Textfile
from metrics_outlets import FakeObservatory, an_outlet, configured, until_written

ANYWHERE = MetricsConfig(listen="127.0.0.1:0")
FIGURES = {"attributed": StreamFigures(alerted=True, evidence=7.0, threshold=9.0, e_process=2.0)}
STALE = believing(condition=Condition.UNKNOWN, reasons=("stale",), verdict_age_s=90_000.0)


def beat(belief: Belief = STALE, *, engine_lost: bool = False) -> events.Beat:
    return events.Beat(belief, "", engine_lost=engine_lost, budget_unwritten=False)


async def served(outlet: PrometheusOutlet, *names: str) -> list[float]:
    """The series of these names, with their labels, as a scrape shows them."""
    assert outlet._metrics is not None
    text = (await asyncio.to_thread(outlet._metrics.text)).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return [float(lines[name]) for name in names]


async def until_served(outlet: PrometheusOutlet) -> None:
    """Wait until it listens. No event is taken meanwhile, as during a long trial."""
    async with asyncio.timeout(30.0):
        while outlet._server is None:  # noqa: ASYNC110 -- nothing sets an event
            await asyncio.sleep(0.002)


async def test_an_address_in_use_is_logged_once_and_served_when_it_is_free_also_during_a_long_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.01)
    outlet = an_outlet()
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as logs:
        config = MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        await outlet.start(configured(config))
        await asyncio.sleep(0.1)
        assert outlet._server is None
    with structlog.testing.capture_logs() as later:
        await until_served(outlet)
    assert outlet._server is not None
    reader, writer = await asyncio.open_connection(*outlet._server.address)
    writer.close()
    await outlet.close()
    assert reader is not None
    (begun,), (ended,) = logs, later
    assert (begun["event"], begun["log_level"]) == ("kickwatch.metrics_unserved", "warning")
    assert "metrics.listen" in begun["what"]
    assert (ended["event"], ended["log_level"], ended["listen"]) == ("kickwatch.metrics_served", "info", config.listen)


async def until_troubled(outlet: PrometheusOutlet, lasts: float) -> None:
    """Wait until the series of the textfile's trouble has this value."""
    for _ in range(1000):
        await outlet.take(beat())
        if await served(outlet, 'kickwatch_trouble{kind="textfile"}') == [lasts]:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"the trouble is not {lasts}")


async def test_a_textfile_needs_no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is written while the address is in use; errors of the file are a trouble of their own."""
    monkeypatch.setattr(textfile, "EVERY_S", 0.01)
    path = tmp_path / "node" / "kickwatch.prom"
    outlet = an_outlet()
    await outlet.take(events.EvidenceOpened({}, lambda: STALE))
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as logs:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        await outlet.start(configured(MetricsConfig(listen=listen, textfile=str(path))))
        await until_troubled(outlet, 1.0)
        path.parent.mkdir()
        await until_troubled(outlet, 0.0)
    assert 'kickwatch_unknown{reason="stale"} 1.0' in path.read_text()
    assert [log["event"] for log in logs] == [
        "kickwatch.metrics_unserved",
        "kickwatch.textfile_unwritten",
        "kickwatch.textfile_written",
    ]
    await outlet.close()
    assert not path.exists()


async def test_an_empty_address_serves_none_and_the_textfile_is_written(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    outlet = an_outlet()
    with structlog.testing.capture_logs() as logs:
        await outlet.start(configured(MetricsConfig(listen="", textfile=str(path))))
        await until_written(path)
        assert outlet._server is None
        await outlet.close()
    assert logs == []


async def test_an_address_that_is_not_up_yet_is_tried_again_and_recorded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """192.0.2.1 is for documentation (RFC 5737): no node has it."""
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.002)
    outlet = an_outlet()
    tries: list[str] = []
    serve_there = outlet._serve

    async def counted(listen: str) -> Server:
        tries.append(listen)
        return await serve_there(listen)

    monkeypatch.setattr(outlet, "_serve", counted)
    with structlog.testing.capture_logs() as logs:
        await outlet.start(configured(MetricsConfig(listen="192.0.2.1:9893")))
        async with asyncio.timeout(30.0):
            while len(tries) < 4:  # noqa: ASYNC110 -- nothing sets an event
                await asyncio.sleep(0.002)
        await outlet.close()
        tries_made = len(tries)
        await asyncio.sleep(0.05)
    assert outlet._server is None
    assert len(tries) == tries_made
    (record,) = logs
    assert record["event"] == "kickwatch.metrics_unserved"
    assert "192.0.2.1" in record["what"]


async def test_another_cause_while_an_address_is_waited_for_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on this node at first, and once it is there another process has the port, or the port needs a capability."""
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.002)
    outlet = an_outlet()
    refusals = [
        AddressUnusableError("A", "wait"),
        *[AddressUnusableError("B", "end it")] * 2,
        ConfigError("C", "choose"),
    ]
    tries = 0

    async def refuse(_: str) -> Server:
        nonlocal tries
        tries += 1
        raise refusals[min(tries, len(refusals)) - 1]

    monkeypatch.setattr(outlet, "_serve", refuse)
    with structlog.testing.capture_logs() as logs:
        await outlet.start(configured(MetricsConfig(listen="192.0.2.1:9893")))
        async with asyncio.timeout(30.0):
            while tries < 6:  # noqa: ASYNC110 -- nothing sets an event
                await asyncio.sleep(0.002)
        await outlet.close()
    assert [(log["what"], log["remedy"]) for log in logs] == [("A", "wait"), ("B", "end it"), ("C", "choose")]


async def test_a_server_that_begins_to_listen_while_the_outlet_closes_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.0)
    outlet = an_outlet()
    begun = asyncio.Event()
    start_server = Server.start

    async def slowly(server: Server) -> None:
        begun.set()
        await start_server(server)
        await asyncio.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await outlet.start(configured(MetricsConfig(listen=f"127.0.0.1:{port}")))
    monkeypatch.setattr(Server, "start", slowly)
    await begun.wait()
    await outlet.close()
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_reload_that_adds_a_textfile_is_taken_while_the_address_is_in_use(
    tmp_path: Path, *, enabled: bool
) -> None:
    """The address was waited for before, and waiting goes on without a second record; or metrics were off."""
    path = tmp_path / "kickwatch.prom"
    outlet = an_outlet()
    with socket.create_server(("127.0.0.1", 0)) as taken, structlog.testing.capture_logs() as logs:
        config = MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        await outlet.start(configured(replace(config, enabled=enabled)))
        await outlet.reload(configured(replace(config, textfile=str(path))))
        await until_written(path)
    await outlet.close()
    assert [log["event"] for log in logs] == ["kickwatch.metrics_unserved"]


async def test_a_refused_reading_does_not_stop_the_textfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    observatory = FakeObservatory()
    observatory.refuses = ObserveError("BPF map cells: lookup failed (EPERM)", "CAP_BPF")
    outlet = PrometheusOutlet(observatory)  # type: ignore[arg-type]
    await outlet.start(configured(MetricsConfig(listen="127.0.0.1:0", textfile=str(path))))
    try:
        await until_written(path)
        assert "kickwatch_refreshes_failed_total 1.0" in path.read_text()
    finally:
        await outlet.close()


async def test_a_scrape_during_a_trial_shows_the_belief_of_that_moment() -> None:
    outlet, believed = an_outlet(), [STALE]
    await outlet.start(configured(ANYWHERE))
    names = (
        'kickwatch_unknown{reason="stale"}',
        'kickwatch_unknown{reason="containers_failed"}',
        "kickwatch_verdict_age_seconds",
        'kickwatch_trouble{kind="engine"}',
        'kickwatch_trouble{kind="history"}',
    )
    try:
        await outlet.take(events.EvidenceOpened({}, lambda: believed[0]))
        await outlet.take(beat(engine_lost=True))
        assert await served(outlet, *names) == [1.0, 0.0, 90_000.0, 1.0, 0.0]
        believed[0] = believing(
            condition=Condition.UNKNOWN, reasons=("containers_failed",), verdict_age_s=1.0, history_kept=False
        )
        await outlet.refresh()
        assert await served(outlet, *names) == [0.0, 1.0, 1.0, 1.0, 1.0]
        await outlet.take(beat(engine_lost=False))
        assert await served(outlet, names[3]) == [0.0]
    finally:
        await outlet.close()


async def test_regressions_are_counted_as_they_stand() -> None:
    outlet = an_outlet()
    await outlet.start(configured(ANYWHERE))
    cells = ("do_sync_core memcg create", "rcu_exp_handler rcu other")
    belief = believing(alerted={AlarmKind.REGRESSED: cells}, published_since_unix_s=7.9)
    try:
        await outlet.take(events.EvidenceOpened({}, lambda: belief))
        await outlet.take(beat())
        names = ("kickwatch_regressed_cells", "kickwatch_e_process_start_timestamp_seconds")
        assert await served(outlet, *names) == [2.0, 7.0]
    finally:
        await outlet.close()


async def test_evidence_about_one_kernel_is_never_shown_for_the_next() -> None:
    """The belief knows of a new kernel before the figures of its first trial arrive; a scrape may come in between."""
    outlet, name = an_outlet(), "kickwatch_e_process_start_timestamp_seconds"
    await outlet.start(configured(ANYWHERE))
    belief = believing(published_since_unix_s=7.0, release="6.1.0")
    try:
        await outlet.take(events.EvidenceOpened({}, lambda: belief))
        belief = believing(published_since_unix_s=9.0, release="6.12.0")
        await outlet.refresh()
        assert await served(outlet, name, 'kickwatch_kernel_info{release="6.1.0"}') == [7.0, 1.0]
        await outlet.take(events.EvidenceOpened({}, lambda: belief))
        assert await served(outlet, name, 'kickwatch_kernel_info{release="6.12.0"}') == [9.0, 1.0]
    finally:
        await outlet.close()


def paused(phase: events.PausePhase, seconds: float = 0.0) -> events.GuardPaused:
    return events.GuardPaused(phase, (Cause.LOAD, Cause.DISK), seconds, 9.0, "load 9")


@pytest.mark.parametrize(
    ("reported", "series"),
    [
        ([events.TrialFailed("a", "b")], {"kickwatch_trials_failed_total": 1}),
        ([events.SessionFailed("a", "b", 1.0)], {"kickwatch_trials_failed_total": 0}),
        ([events.Reaped(3), events.Reaped(1)], {"kickwatch_containers_reaped_total": 4}),
        ([events.TrialsOff(events.Off.PASSIVE)], {'kickwatch_trials_off{reason="passive"}': 1}),
        ([events.Drained("file")], {'kickwatch_trials_off{reason="drained"}': 1}),
        ([events.Drained("file"), events.Undrained("file")], {'kickwatch_trials_off{reason="drained"}': 0}),
        ([events.Drained("file"), events.TrialsOff(None)], {'kickwatch_trials_off{reason="drained"}': 0}),
        (
            [paused(events.PausePhase.BEGAN), paused(events.PausePhase.CONTINUES, 2.0)],
            {
                'kickwatch_guard_paused{reason="load"}': 1,
                'kickwatch_guard_paused{reason="disk"}': 1,
                'kickwatch_guard_pauses_total{reason="disk"}': 1,
                'kickwatch_guard_paused_seconds_total{reason="load"}': 2,
            },
        ),
        (
            [paused(events.PausePhase.BEGAN), paused(events.PausePhase.ENDED, 3.0)],
            {
                'kickwatch_guard_paused{reason="load"}': 0,
                'kickwatch_guard_pauses_total{reason="load"}': 1,
                'kickwatch_guard_paused_seconds_total{reason="disk"}': 3,
            },
        ),
        ([paused(events.PausePhase.BEGAN), events.GuardCalm()], {'kickwatch_guard_paused{reason="load"}': 0}),
        (
            [events.TrialTaken(trial(), TrialOutcome(trial="a", verdict=Verdict.QUIET), (), None, FIGURES)],
            {
                'kickwatch_trials_total{verdict="quiet"}': 1,
                'kickwatch_evidence{stream="attributed"}': 7,
                'kickwatch_stream_alerted{stream="attributed"}': 1,
            },
        ),
        ([events.EvidenceOpened(FIGURES, lambda: STALE)], {'kickwatch_e_process{stream="attributed"}': 2}),
    ],
)
async def test_what_an_event_counts(reported: list[events.OutletEvent], series: dict[str, float]) -> None:
    outlet = an_outlet()
    await outlet.start(configured(ANYWHERE))
    try:
        for event in reported:
            await outlet.take(event)
        assert await served(outlet, *series) == list(series.values())
    finally:
        await outlet.close()


async def test_metrics_that_a_reload_switches_on_show_the_evidence() -> None:
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(enabled=False)))
    await outlet.take(events.EvidenceOpened(FIGURES, lambda: STALE))
    await outlet.take(events.Drained("file"))
    await outlet.take(beat())
    assert outlet._metrics is None
    await outlet.reload(configured(ANYWHERE))
    try:
        assert await served(outlet, 'kickwatch_evidence{stream="attributed"}') == [7.0]
    finally:
        await outlet.close()


async def test_series_outlive_a_reload_and_the_same_configuration_keeps_the_server() -> None:
    outlet = an_outlet()
    await outlet.start(configured(ANYWHERE))
    await outlet.take(events.Reaped(2))
    server = outlet._server
    await outlet.reload(configured(ANYWHERE))
    assert outlet._server is server
    await outlet.reload(configured(replace(ANYWHERE, textfile="/nowhere/k.prom")))
    assert outlet._server is not server
    try:
        assert await served(outlet, "kickwatch_containers_reaped_total") == [2.0]
    finally:
        await outlet.close()


async def test_a_reload_to_an_address_in_use_is_taken_and_the_address_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LISTEN_EVERY_S", 0.01)
    outlet = an_outlet()
    await outlet.start(configured(ANYWHERE))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await outlet.reload(configured(MetricsConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")))
        assert outlet._server is None
    await until_served(outlet)
    await outlet.close()


async def test_a_reload_to_another_textfile_during_a_write_leaves_only_the_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.prom", tmp_path / "new.prom"
    write = Textfile._write
    begun = threading.Event()

    def slowly(file: Textfile) -> None:
        begun.set()
        time.sleep(0.3)
        write(file)

    monkeypatch.setattr(Textfile, "_write", slowly)
    outlet = an_outlet()
    await outlet.start(configured(MetricsConfig(listen="", textfile=str(old))))
    assert await asyncio.to_thread(begun.wait, 5.0)
    await outlet.reload(configured(MetricsConfig(listen="", textfile=str(new))))
    await until_written(new)
    await asyncio.sleep(0.3)
    assert list(tmp_path.iterdir()) == [new]  # noqa: ASYNC240
    await outlet.close()


async def test_a_reload_to_an_invalid_address_is_refused_and_the_old_one_is_served_again() -> None:
    outlet, old = an_outlet(), configured(ANYWHERE)
    await outlet.start(old)
    with pytest.raises(ConfigError):
        await outlet.reload(configured(MetricsConfig(listen="[fe80::1]:9893")))
    await outlet.start(old)
    assert outlet._server is not None
    await outlet.close()


async def test_an_invalid_address_is_refused_at_once() -> None:
    outlet = PrometheusOutlet(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"metrics\.listen"):
        await outlet.start(configured(MetricsConfig(listen="127.0.0.1:x")))


STARTED = """
import asyncio
from kickwatch.outlets.metrics.outlet import PrometheusOutlet
from msgspec.structs import replace
from kickwatch.configuration.types import Config, MetricsConfig, StateConfig

config = replace(Config(), metrics=MetricsConfig(listen=""), state=StateConfig(directory="/nowhere"))
asyncio.run(PrometheusOutlet(None).start(config))
"""


@pytest.mark.parametrize("script", ["import kickwatch.service.daemon", STARTED], ids=["imported", "nowhere to go"])
def test_the_library_is_not_loaded_with_the_outlet_nor_without_an_address_and_a_textfile(script: str) -> None:
    """It costs memory."""
    script = f"{script}\nimport sys\nprint('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
