"""Evidence stays in memory: through a reload, a full disk, another state directory, a failed read."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from builders import containers, kick, trial
from kickwatch.configuration.types import Config, StateConfig, TrialConfig
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.history.history import History, Note, StoredEvidence
from kickwatch.history.record_reader import open_records
from kickwatch.model import AlarmKind, Trial
from kickwatch.service.evidence import Evidence

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a separate file system of one megabyte."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> None:
    for name in ("filler", "history.reserve"):
        with suppress(OSError), (directory / name).open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass


def configured(directory: Path, **changed: Any) -> Config:
    return replace(Config(), state=StateConfig(directory=str(directory)), **changed)


def faulty(number: int) -> Trial:
    lives = tuple(replace(life, creation_path_broadcasts=3) for life in containers(4))
    return replace(trial(kick(12), containers=lives), trial_id=f"{number:08x}")


async def alerted(config: Config, trials: int = 6) -> Evidence:
    evidence = await Evidence.open(config)
    for number in range(trials):
        await evidence.take(faulty(number))
    assert AlarmKind.BROADCASTING in evidence.state.alerted
    return evidence


async def replayed(path: Path) -> bytes:
    """The evidence at the end of a replay."""
    return await asyncio.to_thread(_replayed, path)


async def ids(path: Path) -> list[str]:
    def read() -> list[str]:
        with open_records(path) as rows:
            return [row.trial.trial_id for row in rows]

    return await asyncio.to_thread(read)


def _replayed(path: Path) -> bytes:
    state, monitor = None, None
    with open_records(path) as rows:
        for row in rows:
            assert row.pace is not None
            monitor = Monitor(row.pace)
            if row.state is not None or state is None:
                state = restore(monitor, row.state)[0] if row.state else monitor.start()
            state, _ = monitor.step(state, row.trial)
    assert state is not None
    assert monitor is not None
    return save(monitor, state)


@needs_root
async def test_a_reload_on_a_full_disk_forgets_no_alert(disk: Path, logs: list[Any]) -> None:
    """The disk was full before the first trial: the alert is in memory alone."""
    fill(disk)
    evidence = await alerted(configured(disk))
    assert (await asyncio.to_thread(History(disk).load)).state == b""
    changed = configured(disk, trial=TrialConfig(interval_s=6000.0))
    for config in (configured(disk), changed):
        again = await evidence.adopted(config)
        assert again.state is evidence.state
        assert AlarmKind.BROADCASTING in again.state.alerted
    assert again.monitor.pace.period_s > evidence.monitor.pace.period_s
    assert again.monitor.shares != evidence.monitor.shares
    assert [log["event"] for log in logs] == ["kickwatch.history_trouble"]
    (disk / "filler").unlink()
    await again.take(faulty(6))
    assert logs[-1]["event"] == "kickwatch.history_resumed"
    assert logs[-1]["appended"] == 7
    assert await replayed(disk / "history.db") == again.saved


async def test_a_reload_after_the_history_was_removed_keeps_the_alert(tmp_path: Path, logs: list[Any]) -> None:
    evidence = await alerted(configured(tmp_path))
    (tmp_path / "history.db").unlink()
    again = await evidence.adopted(configured(tmp_path))
    assert again.state.alerted == evidence.state.alerted
    assert logs == []


async def test_the_evidence_moves_to_another_state_directory(tmp_path: Path, logs: list[Any]) -> None:
    evidence = await alerted(configured(tmp_path / "old"))
    moved = await evidence.adopted(configured(tmp_path / "new"))
    assert moved.state is evidence.state
    assert logs == []
    # At once: a daemon that is killed before its next trial has it in the new place.
    assert AlarmKind.BROADCASTING in (await Evidence.open(configured(tmp_path / "new"))).state.alerted
    await moved.take(faulty(6))
    assert await replayed(tmp_path / "new" / "history.db") == moved.saved
    assert await replayed(tmp_path / "old" / "history.db") == evidence.saved


async def test_evidence_that_is_already_in_another_state_directory_stays_unused_and_that_is_logged(
    tmp_path: Path, logs: list[Any]
) -> None:
    other = await Evidence.open(configured(tmp_path / "new"))
    await other.take(trial())
    evidence = await alerted(configured(tmp_path / "old"))
    moved = await evidence.adopted(configured(tmp_path / "new"))
    assert [(log["event"], log["log_level"]) for log in logs] == [("kickwatch.evidence_dropped", "warning")]
    assert str(tmp_path / "new") in logs[0]["what"]
    await moved.take(faulty(6))
    assert len(await ids(tmp_path / "new" / "history.db")) == 2
    assert await replayed(tmp_path / "new" / "history.db") == moved.saved


async def test_trials_that_wait_for_a_full_disk_are_kept_in_another_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with structlog.testing.capture_logs() as logs:
        evidence = await alerted(configured(tmp_path / "file"))
        moved = await evidence.adopted(configured(tmp_path / "new"))
    assert [log["event"] for log in logs] == ["kickwatch.history_trouble"]
    assert await ids(tmp_path / "new" / "history.db") == [f"{number:08x}" for number in range(6)]
    assert await replayed(tmp_path / "new" / "history.db") == moved.saved


@pytest.mark.parametrize("failures", [1, 2])
async def test_evidence_that_cannot_be_read_at_the_start_is_read_again(
    tmp_path: Path, logs: list[Any], monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """If it still cannot be read before the first trial, it is given up, and that is logged."""
    before = await alerted(configured(tmp_path))
    reads = iter([StoredEvidence(notes=(Note("Input/output error", "dmesg"),), unread=True)] * failures)
    real = History.load
    monkeypatch.setattr(History, "load", lambda history: next(reads, None) or real(history))
    evidence = await Evidence.open(configured(tmp_path))
    assert evidence.unread
    await evidence.take(faulty(6))
    dropped = [log["what"] for log in logs if log["event"] == "kickwatch.evidence_dropped"]
    if failures == 1:
        assert AlarmKind.BROADCASTING in evidence.state.alerted
        assert evidence.state.trials == before.state.trials + 1
        assert dropped == []
    else:
        assert evidence.state.trials == 1
        assert "cannot be read" in dropped[0]
    assert not evidence.unread


async def test_a_daemon_that_ends_reports_the_trials_it_could_not_store(tmp_path: Path, logs: list[Any]) -> None:
    (tmp_path / "file").write_text("in the way")
    evidence = await alerted(configured(tmp_path / "file"))
    await evidence.close()
    assert [log["event"] for log in logs] == ["kickwatch.history_trouble"] * 2
    assert "6 trials could not be kept" in logs[-1]["what"]
