"""The file of metrics: always complete, written without beats and without an address, and removed at the end."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from exposition import value
from kickwatch.errors import KickwatchError
from kickwatch.journal.journal import Event
from kickwatch.journal.trouble import TroubleLog
from kickwatch.outlets.metrics import textfile as module
from kickwatch.outlets.metrics.registry import Metrics
from kickwatch.outlets.metrics.textfile import Textfile, TextfileWriter


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def written_ns(path: Path) -> int:
    """When the file was last written, 0 if never."""
    return path.stat().st_mtime_ns if path.exists() else 0


async def nothing() -> None:
    """Nothing to refresh."""


async def until(reached: Callable[[], bool]) -> None:
    """Wait at most thirty seconds."""
    async with asyncio.timeout(30.0):
        while not reached():  # noqa: ASYNC110 -- nothing sets an event
            await asyncio.sleep(0.002)


async def test_it_is_written_again_and_again_and_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing else happens meanwhile, as during a long trial."""
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    path = tmp_path / "kickwatch.prom"
    refreshed: list[None] = []

    async def refresh() -> None:
        refreshed.append(None)

    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(path))
    writer = TextfileWriter(file, refresh, TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN))
    await until(path.exists)
    first_ns = written_ns(path)
    await until(lambda: written_ns(path) > first_ns)
    await writer.close()
    assert len(refreshed) >= 2
    assert files(tmp_path) == []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Each write takes 0.3 s. Set once one has begun."""
    begun = threading.Event()
    write = Textfile._write

    def slowly(file: Textfile) -> None:
        begun.set()
        time.sleep(0.3)
        write(file)

    monkeypatch.setattr(Textfile, "_write", slowly)
    return begun


async def test_a_write_under_way_at_the_end_does_not_put_the_file_back(slow: threading.Event, tmp_path: Path) -> None:
    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(tmp_path / "kickwatch.prom"))
    writer = TextfileWriter(file, nothing, TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN))
    await until(slow.is_set)
    await writer.close()
    await asyncio.sleep(0.5)
    assert files(tmp_path) == []


async def test_a_signal_during_the_last_write_leaves_no_file(slow: threading.Event, tmp_path: Path) -> None:
    """It cancels whoever closes the writer, such as a reload."""
    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(tmp_path / "kickwatch.prom"))
    writer = TextfileWriter(file, nothing, TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN))
    await until(slow.is_set)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.sleep(0.5)
    assert files(tmp_path) == []


async def test_a_missing_directory_is_reported_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    path = tmp_path / "absent" / "kickwatch.prom"
    tries: list[None] = []

    async def refresh() -> None:
        tries.append(None)

    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(path))
    with structlog.testing.capture_logs() as logs:
        writer = TextfileWriter(file, refresh, TroubleLog(Event.TEXTFILE_UNWRITTEN, Event.TEXTFILE_WRITTEN))
        await until(lambda: len(tries) >= 4)
        assert [log["event"] for log in logs] == ["kickwatch.textfile_unwritten"]
        path.parent.mkdir()
        await until(lambda: len(logs) >= 2)
        await writer.close()
    assert [log["event"] for log in logs] == ["kickwatch.textfile_unwritten", "kickwatch.textfile_written"]


async def test_the_file_is_complete_and_readable_by_all_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(path))
    before = os.umask(0o077)
    try:
        await file.write()
    finally:
        os.umask(before)
    assert value(path.read_bytes(), "kickwatch_build_info", version="1") == 1.0
    assert path.stat().st_mode & 0o777 == 0o644
    assert files(tmp_path) == [path]


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    file = Textfile(await asyncio.to_thread(Metrics, "1"), str(path))
    await file.write()
    done, torn = threading.Event(), list[int]()

    def read() -> None:
        while not done.is_set():
            text = path.read_bytes()
            if not text.endswith(b"\n") or b"kickwatch_process_max_fds" not in text:
                torn.append(len(text))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(30):
            await file.write()
    finally:
        done.set()
        reader.join()
    assert not torn


async def test_a_file_left_by_a_killed_daemon_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "kickwatch.prom"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("foreign")
    (tmp_path / ".kickwatch.prom.new").symlink_to(elsewhere)
    await Textfile(await asyncio.to_thread(Metrics, "1"), str(path)).write()
    assert elsewhere.read_text() == "foreign"
    assert not path.is_symlink()


async def test_a_failed_write_is_an_error_and_leaves_no_new_file(tmp_path: Path) -> None:
    metrics = await asyncio.to_thread(Metrics, "1")
    with pytest.raises(KickwatchError, match=r"metrics\.textfile: cannot write /nowhere/at/all/k\.prom"):
        await Textfile(metrics, "/nowhere/at/all/k.prom").write()
    path = tmp_path / "kickwatch.prom"
    path.mkdir()  # a rename over it fails, root or not
    with pytest.raises(KickwatchError, match="check that its directory"):
        await Textfile(metrics, str(path)).write()
    assert files(tmp_path) == [path]
