"""The history: kept whole, kept through kill -9, set aside when damaged, never in the watch's way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from builders import containers, kick, trial
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.persist import save
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import TrialOutcome
from kickwatch.errors import KickwatchError
from kickwatch.history.backlog import Entry
from kickwatch.history.history import History, Retention
from kickwatch.history.record_reader import open_records
from kickwatch.history.statements import BLOCK
from kickwatch.model import Trial, Verdict

PACE = Pace(4, 60.0)


def numbered(number: int) -> Trial:
    return replace(trial(kick(number)), trial_id=f"{number:08x}", started_unix_s=1000.0 + number)


def entry(one: Trial, before: bytes, after: bytes) -> Entry:
    return Entry(one, before, TrialOutcome(trial=one.trial_id, verdict=Verdict.UNKNOWN), after, PACE)


def fill(history: History, count: int, **fields: object) -> None:
    for number in range(count):
        before = b"%d" % (number - 1) if number else b""
        assert history.append(entry(replace(numbered(number), **fields), before, b"%d" % number)).kept


def kept(history: History) -> list[Trial]:
    with open_records(history.path) as rows:
        return [row.trial for row in rows]


def test_trials_come_back_whole_and_in_order(tmp_path: Path) -> None:
    assert History(tmp_path).load().state == b""
    fill(History(tmp_path), 5)
    again = History(tmp_path)
    assert again.load().state == b"4"
    assert again.load().notes == ()
    assert kept(again) == [numbered(number) for number in range(5)]


def test_old_trials_are_dropped_in_blocks_and_the_evidence_stays(tmp_path: Path) -> None:
    history = History(tmp_path, Retention(age_s=50))
    fill(history, 400)
    ids = [one.started_unix_s for one in kept(history)]
    assert 50 <= len(ids) <= 50 + 2 * BLOCK
    assert ids[-1] == 1399
    assert history.load().state == b"399"


def test_a_large_store_drops_its_oldest(tmp_path: Path) -> None:
    history = History(tmp_path, Retention(size_bytes=200_000))
    for number in range(400):
        big = replace(numbered(number), notes=(os.urandom(400).hex(),))
        assert history.append(entry(big, b"", b"s")).kept
    assert history.path.stat().st_size < 400_000
    assert kept(history)[-1].trial_id == f"{399:08x}"
    assert kept(history)[0].trial_id != f"{0:08x}"


@pytest.mark.parametrize("damage", [b"this is no database, and long enough" * 300, b"SQLite format 3\0" * 300])
def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    history = History(tmp_path)
    history.path.write_bytes(damage)
    done = history.append(entry(numbered(1), b"", b"s"))
    assert done.kept
    assert "set aside" in done.notes[0].what
    assert Path(done.notes[0].aside).read_bytes() == damage
    assert len(kept(history)) == 1


def test_a_directory_that_cannot_be_made_is_said_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file")
    assert history.load().state == b""
    done = history.append(entry(numbered(1), b"", b"s"))
    assert not done.kept
    assert str(tmp_path / "file") in done.notes[0].what


@pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")
def test_a_full_disk_never_stops_the_watch_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)], check=True)
    history = History(tmp_path)
    try:
        said = []
        for number in range(400):
            done = history.append(entry(replace(numbered(number), notes=(os.urandom(3000).hex(),)), b"", b"s"))
            said += [note.what for note in done.notes]
        assert any("full" in what for what in said), said
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        assert history.append(entry(numbered(1), b"", b"room")).kept
        assert history.load().state == b"room"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")
def test_a_read_only_directory_is_said(tmp_path: Path) -> None:
    history = History(tmp_path)
    fill(history, 1)
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        done = history.append(entry(numbered(1), b"0", b"1"))
        assert not done.kept
        assert done.notes
        assert history.load().state == b"0"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert len(kept(history)) == 1


WRITER = """
import sys
from pathlib import Path
import msgspec
from kickwatch.detect.rates import Pace
from kickwatch.detect.state import TrialOutcome
from kickwatch.history.backlog import Entry
from kickwatch.history.history import History
from kickwatch.model import Trial, Verdict
trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
history = History(Path(sys.argv[1]))
state = history.load().state
while True:
    after = b"%d" % (int(state or b"0") + 1)
    done = history.append(Entry(trial, state, TrialOutcome(trial="x", verdict=Verdict.QUIET), after, Pace(4, 60.0)))
    assert done.kept, done
    state = after
    print(after.decode(), flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_50_kills_lose_nothing_but_the_open_trial(tmp_path: Path) -> None:
    record = msgspec.json.encode(trial(kick(3)))
    for attempt in range(50):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write(record)
            writer.stdin.close()
            last = writer.stdout.readline()
            time.sleep(0.0007 * attempt)
            writer.send_signal(signal.SIGKILL)
            told = int((writer.stdout.read().splitlines() or [last])[-1])
        history = History(tmp_path)
        found = history.load()
        assert found.notes == ()
        assert told <= int(found.state) <= told + 1  # one commit may not have been reported yet
    assert len(kept(history)) == int(found.state)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    lines = tmp_path / "trials.jsonl"
    lines.write_bytes(msgspec.json.encode(numbered(1)) + b"\n\n{broken\n")
    with pytest.raises(KickwatchError, match=r"trials\.jsonl: line 3"), open_records(lines) as rows:
        list(rows)
    with pytest.raises(KickwatchError, match="cannot be read"), open_records(tmp_path / "none") as rows:
        list(rows)


def test_a_history_replays_to_the_same_evidence(tmp_path: Path) -> None:
    monitor, history = Monitor(PACE), History(tmp_path)
    state, saved = monitor.start(), b""
    outcomes = []
    for number in range(40):
        lives = tuple(replace(life, creation_path_broadcasts=number % 2) for life in containers(4))
        one = replace(numbered(0), trial_id=f"{number:08x}", containers=lives, started_unix_s=1000.0 + 60 * number)
        state, outcome = monitor.step(state, one)
        before, saved = saved, save(monitor, state)
        assert history.append(Entry(one, before, outcome, saved, PACE)).kept
        outcomes.append(outcome)
    again = monitor.start()
    with open_records(history.path) as rows:
        for row, outcome in zip(rows, outcomes, strict=True):
            again, repeated = monitor.step(again, row.trial)
            assert repeated == outcome
            assert msgspec.json.encode(repeated) == row.outcome
    assert save(monitor, again) == saved == history.load().state


def test_what_was_spent_since_then_is_told(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.spent(0.0) == []
    fill(history, 5)
    assert history.spent(1002.0) == [(1002.0, 4), (1003.0, 4), (1004.0, 4)]
    assert history.spent(5000.0) == []


def test_what_was_spent_under_a_wrong_clock_is_told_too(tmp_path: Path) -> None:
    history = History(tmp_path)
    for started_unix_s in (9000.0, 10.0, 9100.0):  # set back, and forward again
        one = replace(numbered(1), started_unix_s=started_unix_s)
        assert history.append(entry(one, b"", b"s")).kept
    assert history.spent(8000.0) == [(9000.0, 4), (9100.0, 4)]


def test_of_a_history_that_cannot_be_read_nobody_knows_what_was_spent(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.path.write_bytes(b"this is no database, and long enough" * 300)
    assert history.spent(0.0) is None
    history.path.unlink()
    history.path.mkdir()
    assert history.spent(0.0) is None
