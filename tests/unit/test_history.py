"""The history: kept whole, kept through kill -9, set aside when damaged, never in the watch's way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from builders import kick, trial
from msgspec.structs import replace

from kickwatch.history import FILE_NAME, History, HistoryError, read_trials
from kickwatch.model import Trial


def numbered(number: int) -> Trial:
    return replace(trial(kick(number)), trial_id=f"{number:08x}", started_unix_s=1000.0 + number)


def kept(directory: Path) -> list[Trial]:
    return list(read_trials(directory / FILE_NAME))


def test_trials_come_back_whole_and_in_order(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.load_state() is None
    for number in range(5):
        assert history.append(numbered(number), b"state %d" % number)
    assert history.load_state() == b"state 4"
    assert kept(tmp_path) == [numbered(number) for number in range(5)]
    history.close()
    again = History(tmp_path)
    assert again.load_state() == b"state 4"
    assert again.append(numbered(5), b"state 5")
    assert len(kept(tmp_path)) == 6
    assert again.take_said() == []
    again.close()


def test_old_trials_are_dropped(tmp_path: Path) -> None:
    history = History(tmp_path, max_age_s=3)
    for number in range(10):
        history.append(numbered(number), b"")
    assert [one.started_unix_s for one in kept(tmp_path)] == [1006, 1007, 1008, 1009]
    history.close()


def test_a_large_store_drops_its_oldest(tmp_path: Path) -> None:
    history = History(tmp_path, max_bytes=100_000)
    for number in range(300):
        big = replace(numbered(number), notes=(os.urandom(1000).hex(),))
        assert history.append(big, b"")
    ids = [one.trial_id for one in kept(tmp_path)]
    assert 10 < len(ids) < 120
    assert ids[-1] == f"{299:08x}"
    history.close()


@pytest.mark.parametrize(
    "damage", [b"this is no database, and long enough to be sure" * 100, b"SQLite format 3\0" * 300]
)
def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(damage)
    history = History(tmp_path)
    assert history.append(numbered(1), b"s")
    (said,) = history.take_said()
    assert "set aside as history.db.damaged-" in said
    (aside,) = tmp_path.glob("history.db.damaged-*")
    assert aside.read_bytes() == damage
    assert len(kept(tmp_path)) == 1
    history.close()


def test_a_directory_that_cannot_be_made_is_said_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file")
    assert not history.append(numbered(1), b"s")
    assert history.load_state() is None
    assert all(str(tmp_path / "file") in said for said in history.take_said())


@pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")
def test_a_full_disk_is_said_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path)], check=True)
    history = History(tmp_path)
    try:
        number = 0
        while history.append(replace(numbered(number), notes=(os.urandom(4000).hex(),)), b"%d" % number):
            number += 1
            assert number < 1000
        assert "full" in history.take_said()[0]
        before = history.trials()
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        assert history.append(numbered(number), b"room")
        assert history.trials() == before + 1
        assert history.load_state() == b"room"
    finally:
        history.close()
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")
def test_a_read_only_directory_is_said(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(numbered(0), b"0")
    history.close()
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path)], check=True)
        assert not history.append(numbered(1), b"1")
        assert "could not keep the trial" in history.take_said()[0]
    finally:
        history.close()
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert len(kept(tmp_path)) == 1


WRITER = """
import sys
from pathlib import Path
import msgspec
from kickwatch.history import History
from kickwatch.model import Trial
trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
history = History(Path(sys.argv[1]))
number = int(history.load_state() or b"0")
while True:
    number += 1
    assert history.append(trial, b"%d" % number), history.said
    print(number, flush=True)
"""


@pytest.mark.timeout(120)
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
        state = int(history.load_state() or b"0")
        assert told <= state <= told + 1  # the one whose commit was not told of yet
        assert history.trials() == state
        assert history.take_said() == []
        history.close()


def test_replay_names_what_it_cannot_read(tmp_path: Path) -> None:
    lines = tmp_path / "trials.jsonl"
    lines.write_bytes(msgspec.json.encode(numbered(1)) + b"\n\n{broken\n")
    with pytest.raises(HistoryError, match=r"trials\.jsonl, line 3"):
        list(read_trials(lines))
    with pytest.raises(HistoryError, match="cannot be read"):
        list(read_trials(tmp_path / "none"))
    truncated = tmp_path / "short.db"
    truncated.write_bytes(b"SQLite format 3\0")
    with pytest.raises(HistoryError, match=r"short\.db cannot be read"):
        list(read_trials(truncated))
