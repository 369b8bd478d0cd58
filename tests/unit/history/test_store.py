"""The store and what happens to it: foreign, newer, empty, busy; and what a replay needs is never lost."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import restore, save
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import State, TrialOutcome
from kickwatch.errors import KickwatchError
from kickwatch.history import reserve as reserve_module
from kickwatch.history import store
from kickwatch.history.backlog import Entry
from kickwatch.history.history import AppendResult, History, Retention
from kickwatch.history.record_reader import RecordedTrial, open_records
from kickwatch.history.reserve import RESERVE_FILE
from kickwatch.history.set_aside import MAX_DAMAGED
from kickwatch.history.statements import BLOCK
from kickwatch.model import Verdict
from watching import PACE, serial

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")


class Watch:
    """What the daemon does: step, save, keep."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.monitor = Monitor(PACE)
        self.state, self.saved = self.monitor.start(), b""
        self.number = 0

    def trial(self, each: int = 0, *, keep: bool = True) -> AppendResult:
        one = replace(serial(each), trial_id=f"{self.number:08x}", started_unix_s=1e9 + 70.0 * self.number)
        self.number += 1
        self.state, outcome = self.monitor.step(self.state, one)
        before, self.saved = self.saved, save(self.monitor, self.state)
        return self.history.append(Entry(one, before, outcome, self.saved, PACE)) if keep else AppendResult(kept=False)


def replayed(path: Path) -> tuple[State, int]:
    """The evidence at the end of a replay, and how many outcomes differ from those kept."""
    monitor = Monitor(PACE)
    state, otherwise = monitor.start(), 0
    with open_records(path) as rows:
        for row in rows:
            if row.state is not None:
                state = history_state(monitor, row.state)
            state, outcome = monitor.step(state, row.trial)
            otherwise += msgspec.json.encode(outcome) != row.outcome
    return monitor.flush_zeros(state), otherwise


def history_state(monitor: Monitor, saved: bytes) -> State:
    state, lost = restore(monitor, saved) if saved else (monitor.start(), ())
    assert not lost
    return state


def rows_of(path: Path) -> list[RecordedTrial]:
    with open_records(path) as rows:
        return list(rows)


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", *options, str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def entry(number: int = 0, padding: int = 0) -> Entry:
    one = replace(serial(), trial_id=f"{number:08x}", notes=(os.urandom(padding).hex(),))
    return Entry(one, b"", TrialOutcome(trial=one.trial_id, verdict=Verdict.QUIET), b"s", PACE)


def test_what_is_left_after_retention_replays_to_the_same_evidence(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path, Retention(age_s=70.0 * 90)))
    for number in range(4 * BLOCK + 5):
        assert watch.trial(each=int(number % 7 == 0)).kept
    left = rows_of(watch.history.path)
    assert 90 <= len(left) <= 90 + BLOCK
    assert left[0].state
    assert [row.state for row in left[1:]] == [None] * (len(left) - 1)
    assert replayed(watch.history.path) == (watch.monitor.flush_zeros(watch.state), 0)


def test_evidence_of_trials_that_could_not_be_kept_is_not_lost_to_a_replay(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path))
    for number in range(20):
        watch.trial(each=1, keep=number not in {4, 5, 11})
    assert [bool(row.state) for row in rows_of(watch.history.path)] == [index in {4, 9} for index in range(17)]
    assert replayed(watch.history.path) == (watch.monitor.flush_zeros(watch.state), 0)


def test_evidence_that_began_anew_begins_anew_in_a_replay(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path))
    for number in range(6):
        if number == 3:
            watch.state, watch.saved = watch.monitor.start(), b""
        watch.trial(each=1)
    assert [row.state for row in rows_of(watch.history.path)] == [None, None, None, b"", None, None]
    assert replayed(watch.history.path) == (watch.monitor.flush_zeros(watch.state), 0)


def test_a_store_that_was_set_aside_takes_no_evidence_with_it(tmp_path: Path) -> None:
    watch = Watch(History(tmp_path))
    for _ in range(3):
        watch.trial(each=1)
    watch.history.path.write_bytes(b"garbage" * 1000)
    kept = watch.trial(each=1)
    assert kept.kept
    assert "set aside as" in kept.notes[0].what
    watch.trial(each=1)
    assert len(rows_of(watch.history.path)) == 2
    assert replayed(watch.history.path) == (watch.monitor.flush_zeros(watch.state), 0)


def test_several_trials_are_one_transaction(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.append(*map(entry, range(10))).kept
    assert len(rows_of(history.path)) == 10


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    history = History(tmp_path)
    with sqlite3.connect(history.path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = history.path.read_bytes()
    kept = history.append(entry())
    assert not kept.kept
    assert "another program's" in kept.notes[0].what
    assert "another program's" in History(tmp_path).load().notes[0].what
    assert history.append(entry(1)).notes == ()  # logged once
    assert history.path.read_bytes() == before


def test_a_newer_store_is_set_aside_whole(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(entry())
    with sqlite3.connect(history.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    found = history.load()
    assert found.state == b""
    assert "has version 99" in found.notes[0].what
    assert found.notes[0].aside == str(tmp_path / "history-newer-1.db")
    assert history.append(entry()).kept


@pytest.mark.parametrize("size", [0, 1])
def test_a_store_that_was_hardly_begun_is_begun(tmp_path: Path, size: int) -> None:
    history = History(tmp_path)
    history.path.write_bytes(b"S" * size)
    assert history.load().state == b""
    assert history.append(entry()).kept


def test_a_damaged_page_is_corruption(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(*(entry(number, 500) for number in range(50)))
    content = bytearray(history.path.read_bytes())
    content[4096 : len(content) // 2] = os.urandom(len(content) // 2 - 4096)
    history.path.write_bytes(content)
    kept = history.append(entry(50))
    assert kept.kept
    assert kept.notes[0].aside


def test_a_damaged_record_is_named_by_a_reader(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(*map(entry, range(3)))
    with sqlite3.connect(history.path) as connection:
        connection.execute("UPDATE trials SET record = x'00' WHERE id = 2")
    connection.close()
    with pytest.raises(KickwatchError, match="trial 2 cannot be read"):
        rows_of(history.path)


def test_damaged_evidence_is_said_and_begins_anew(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(entry())
    with sqlite3.connect(history.path) as connection:
        connection.execute("UPDATE states SET state = x'00'")
    connection.close()
    found = history.load()
    assert found.state == b""
    assert found.notes


def test_only_three_stores_set_aside_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(MAX_DAMAGED + 2):
        history.path.write_bytes(b"garbage %d" % number * 1000)
        os.utime(history.path, ns=(number, number))
        kept = history.append(entry())
        assert kept.kept
    assert "was removed" in kept.notes[1].what
    assert "damaged" in kept.notes[1].remedy
    aside = sorted(tmp_path.glob("history-*.db"))
    assert len(aside) == MAX_DAMAGED
    assert not any(path.read_bytes().startswith(b"garbage 0") for path in aside)


def test_a_store_that_another_holds_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_S", 0.1)
    history = History(tmp_path)
    history.append(entry())
    other = sqlite3.connect(history.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    kept = history.append(entry(1))
    assert not kept.kept
    assert "another process has locked it" in kept.notes[0].remedy
    other.execute("ROLLBACK")
    other.close()
    assert history.append(entry(1)).kept


def test_a_reader_does_not_keep_the_watch_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_S", 0.1)
    history = History(tmp_path)
    history.append(*map(entry, range(9)))
    with open_records(history.path) as rows:
        next(rows)
        assert history.append(entry(9)).kept
        assert len(list(rows)) == 8  # what was there when it began
    assert len(rows_of(history.path)) == 10


def test_a_reader_leaves_no_files_behind_and_changes_nothing(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(*map(entry, range(3)))
    copy = tmp_path / "copy" / "of.db"
    copy.parent.mkdir()
    shutil.copy(history.path, copy)
    before = copy.read_bytes()
    assert len(rows_of(copy)) == 3
    assert list(copy.parent.iterdir()) == [copy]
    assert copy.read_bytes() == before


def test_a_new_form_is_one_more_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path)
    history.append(entry())
    more = (*store.MIGRATIONS, "ALTER TABLE trials ADD COLUMN more TEXT NOT NULL DEFAULT 'x'; CREATE TABLE t (a)")
    monkeypatch.setattr(store, "MIGRATIONS", more)
    assert history.append(entry(1)).kept
    with sqlite3.connect(history.path) as connection:
        assert connection.execute("SELECT more FROM trials").fetchall() == [("x",), ("x",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    assert len(rows_of(history.path)) == 2


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path)
    history.append(entry())
    with monkeypatch.context() as patch:
        patch.setattr(store, "MIGRATIONS", (*store.MIGRATIONS, "CREATE TABLE t (a); SELECT nonsense"))
        with pytest.raises(store.StoreError), store.writing(history.path):
            pass
    assert history.append(entry(1)).kept
    assert len(rows_of(history.path)) == 2


@needs_root
def test_a_copy_in_a_read_only_place_can_be_read(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(*map(entry, range(3)))
    (tmp_path / RESERVE_FILE).unlink()
    with mounted(tmp_path, "--bind", str(tmp_path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        assert len(rows_of(history.path)) == 3
        assert history.load().state == b"s"
        kept = history.append(entry(3))
        assert not kept.kept
        assert str(history.path) in kept.notes[0].what
        assert "state.directory" in kept.notes[0].remedy


def test_a_reserve_is_held_and_not_made_again_and_again(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(entry())
    reserve = tmp_path / RESERVE_FILE
    assert reserve.stat().st_size == reserve_module.RESERVE_BYTES
    made = reserve.stat().st_mtime_ns
    history.append(entry(1))
    assert reserve.stat().st_mtime_ns == made


def test_the_pace_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    history = History(tmp_path)
    pace = Pace(7, 0.1 + 0.2)
    history.append(replace(entry(), pace=pace))
    assert rows_of(history.path)[0].pace == pace
