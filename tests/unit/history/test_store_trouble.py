"""A history whose disk is full, fails or may not be written: it stays, and its trials are appended later."""

import os
import resource
import shutil
import sqlite3
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.state import TrialOutcome
from kickwatch.history import reserve as reserve_module
from kickwatch.history import store
from kickwatch.history.backlog import Backlog, Entry
from kickwatch.history.history import AppendResult, History
from kickwatch.history.record_reader import open_records
from kickwatch.history.reserve import RESERVE_FILE
from kickwatch.history.set_aside import MAX_DAMAGED
from kickwatch.model import Verdict
from watching import PACE, serial

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")


class Watch:
    """What the daemon does: step, save, keep. Its trials broadcast, so that each changes the evidence."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.monitor = Monitor(PACE)
        self.state, self.saved = self.monitor.start(), b""
        self.number = 0

    def trial(self, padding: int = 0) -> AppendResult:
        one = replace(serial(1), trial_id=f"{self.number:08x}", notes=(os.urandom(padding).hex(),))
        self.number += 1
        self.state, outcome = self.monitor.step(self.state, one)
        before, self.saved = self.saved, save(self.monitor, self.state)
        return self.history.append(Entry(one, before, outcome, self.saved, PACE))


def entry(number: int = 0) -> Entry:
    one = replace(serial(), trial_id=f"{number:08x}")
    return Entry(one, b"", TrialOutcome(trial=one.trial_id, verdict=Verdict.QUIET), b"s", PACE)


def ids(path: Path) -> list[int]:
    """The trials in a history, in its order."""
    with open_records(path) as rows:
        return [int(row.trial.trial_id, 16) for row in rows]


def replayed(path: Path) -> bytes:
    """The evidence at the end of a replay."""
    monitor = Monitor(PACE)
    state = monitor.start()
    with open_records(path) as rows:
        for row in rows:
            if row.state is not None:
                state, lost = restore(monitor, row.state) if row.state else (monitor.start(), ())
                assert lost == ()
            state, _ = monitor.step(state, row.trial)
    return save(monitor, state)


@contextmanager
def small_disk(directory: Path, size: str = "1m") -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> Path:
    filler = directory / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


@contextmanager
def failing_writes() -> Iterator[None]:
    """Every write(2) that makes a file longer fails with EFBIG, which SQLite reports as SQLITE_IOERR."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def aside(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("history-*-*.db"))


def test_writes_that_fail_set_nothing_aside_and_delete_nothing(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path))
    for _ in range(3):
        assert watch.trial().kept
    with failing_writes():
        done = [watch.trial() for _ in range(6)]
    assert [one.kept for one in done] == [False] * 6
    (note,) = [note for one in done for note in one.notes]
    assert "disk I/O error" in note.what
    assert note.aside == ""
    assert aside(tmp_path) == []
    last = watch.trial()
    assert last.kept
    assert last.resumed is not None
    assert (last.resumed.appended, last.resumed.lost) == (7, 0)
    assert watch.trial().resumed is None
    assert ids(watch.history.path) == list(range(11))
    assert replayed(watch.history.path) == watch.saved == History(tmp_path).load().state


@needs_root
def test_a_full_disk_sets_nothing_aside_and_all_trials_are_appended_later(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        watch = Watch(History(tmp_path))
        for _ in range(3):
            assert watch.trial().kept
        filler = fill(tmp_path)
        done = [watch.trial(4000) for _ in range(60)]  # on the reserve at first
        assert done[0].kept
        assert not done[-1].kept
        (note,) = [note for one in done for note in one.notes]
        assert "full" in note.what
        assert not any(one.resumed for one in done)
        assert aside(tmp_path) == []
        filler.unlink()
        last = watch.trial()
        assert last.kept
        assert last.resumed is not None
        assert last.resumed.appended == 1 + sum(not one.kept for one in done)
        assert last.resumed.lost == 0
        assert (tmp_path / RESERVE_FILE).exists()
        assert ids(watch.history.path) == list(range(64))
        assert replayed(watch.history.path) == watch.saved


@needs_root
def test_a_full_disk_without_a_reserve_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the index of its log SQLite says I/O error."""
    monkeypatch.setattr(reserve_module, "RESERVE_BYTES", 0)
    with small_disk(tmp_path):
        watch = Watch(History(tmp_path))
        assert watch.trial().kept
        filler = fill(tmp_path)
        (note,) = watch.trial().notes
        assert "free space" in note.remedy
        assert watch.trial().notes == ()
        filler.unlink()
        assert watch.trial().kept
        assert ids(watch.history.path) == list(range(4))


@needs_root
def test_a_disk_remounted_read_only_gets_its_trials_later(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        watch = Watch(History(tmp_path))
        assert watch.trial().kept
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        done = [watch.trial() for _ in range(4)]
        assert [len(one.notes) for one in done] == [1, 0, 0, 0]
        assert History(tmp_path).load().state  # read it can be
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        assert watch.trial().kept
        assert ids(watch.history.path) == list(range(6))
        assert replayed(watch.history.path) == watch.saved


def test_a_state_directory_that_is_removed_is_made_again_and_that_is_logged(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path / "state"))
    for _ in range(3):
        assert watch.trial().kept
    shutil.rmtree(tmp_path / "state")
    done = watch.trial()
    assert done.kept
    assert "was removed" in done.notes[0].what
    assert watch.trial().notes == ()
    assert ids(watch.history.path) == [3, 4]
    assert replayed(watch.history.path) == watch.saved


def test_what_waits_is_bounded_and_a_replay_follows_across_the_gap(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path, backlog=Backlog(max_bytes=8000)))
    assert watch.trial().kept
    with failing_writes():
        for _ in range(30):
            watch.trial()
    done = watch.trial()
    assert done.resumed is not None
    assert done.resumed.lost > 5
    assert done.resumed.appended + done.resumed.lost == 31
    assert ids(watch.history.path) == [0, *range(1 + done.resumed.lost, 32)]
    assert replayed(watch.history.path) == watch.saved


def test_a_trial_that_was_kept_although_its_commit_failed_is_kept_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    with failing_writes():
        assert not history.append(entry(1)).kept
    assert History(tmp_path).append(entry(1)).kept  # as a commit would whose sync failed
    assert history.append(entry(2)).kept
    assert ids(history.path) == [1, 2]


def test_what_waits_at_the_end_of_the_daemon_is_tried_once_more_or_named(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.flush().notes == ()
    with failing_writes():
        history.append(entry(1))
        history.append(entry(2))
        (note,) = history.flush().notes
        assert "2 trials could not be kept" in note.what
    assert history.flush().kept
    assert ids(history.path) == [1, 2]


def test_an_error_of_a_statement_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLITE_ERROR can be a fault of ours: a migration that fails must not cost a node its history."""
    history = History(tmp_path)
    history.append(*map(entry, range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(store, "MIGRATIONS", (*store.MIGRATIONS, "SELECT nonsense"))
        done = history.append(entry(3))
        assert not done.kept
        assert "nonsense" in done.notes[0].what
        assert "no damage" in done.notes[0].remedy
    assert aside(tmp_path) == []
    assert history.append(entry(4)).kept
    assert ids(history.path) == list(range(5))


@pytest.mark.parametrize(
    "damage", ["DROP TABLE states", "ALTER TABLE trials DROP COLUMN period_s", "DELETE FROM trials WHERE id > 1"]
)
def test_a_store_that_can_take_no_trial_is_set_aside(tmp_path: Path, damage: str) -> None:
    history = History(tmp_path)
    history.append(*map(entry, range(3)))
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute(damage)
        connection.commit()
    done = history.append(entry(3))
    assert done.kept
    assert done.notes[0].aside == str(tmp_path / "history-corrupt-1.db")
    assert ids(history.path) == [3]


def test_what_was_set_aside_is_not_deleted_if_it_may_be_sound(tmp_path: Path) -> None:
    """Older releases set sound stores aside, as full; a newer kickwatch's is sound; a damaged name proves nothing."""
    history = History(tmp_path)
    sound = ["history-corrupt-1.db", "history-full-1.db", "history-full-2.db", "history-newer-1.db"]
    history.append(entry())
    for name in sound:
        shutil.copy(history.path, tmp_path / name)
    for number in range(MAX_DAMAGED + 3):
        history.path.write_bytes(b"garbage %d" % number * 1000)
        assert history.append(entry()).kept
    assert set(sound) <= set(aside(tmp_path))
    assert len(aside(tmp_path)) == len(sound) + MAX_DAMAGED


@needs_root
def test_a_store_left_by_a_kill_is_read_on_a_full_disk(tmp_path: Path) -> None:
    """Its write-ahead log is not empty, and there is no room for the log's index."""
    work, disk = tmp_path / "work", tmp_path / "disk"
    disk.mkdir()
    history = History(work)
    history.append(entry(1))
    with closing(sqlite3.connect(history.path, isolation_level=None)) as connection:
        connection.execute("UPDATE states SET state = ?", (zlib.compress(b"newest"),))
        with small_disk(disk):
            for file in work.glob("history.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, disk)
            assert (disk / "history.db-wal").stat().st_size > 0
            fill(disk)
            found = History(disk).load()
            assert (found.state, found.notes) == (b"newest", ())
            assert not found.unread


def test_what_was_spent_is_unknown_on_a_disk_that_fails_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> bool:
        raise OSError(5, "Input/output error")

    history = History(tmp_path)
    history.append(entry())
    monkeypatch.setattr(Path, "exists", fails)
    assert history.spent(0.0) is None


def test_a_file_that_is_no_database_is_closed_again(tmp_path: Path) -> None:
    """The connection stayed open until it was collected, which Python 3.13 warns of."""
    file = tmp_path / "history.db"
    file.write_text("no database" * 1000)
    with pytest.raises(store.StoreError) as caught, store.reading(file):
        pass
    assert caught.value  # its frames hold what is still open
    assert str(file) not in opened()


def opened() -> set[str]:
    """The files that this process has open."""
    return {str(link.readlink()) for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()}
