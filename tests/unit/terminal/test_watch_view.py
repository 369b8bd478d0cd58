"""What `kickwatch watch` takes for a running daemon, and what it remembers of one that has gone."""

import os
from pathlib import Path

from msgspec.structs import replace

from kickwatch.node.lock import NodeLock
from kickwatch.node.processes import start_ticks
from kickwatch.outlets.status import Presence, Sight, look, write
from kickwatch.terminal.watch_view import Viewer
from watched_status import NOW, STATUS

OURS = replace(STATUS, pid=os.getpid(), start_ticks=start_ticks("self"))


def test_a_daemon_that_runs_has_written_the_file_itself(tmp_path: Path) -> None:
    path, lock = tmp_path / "status.json", tmp_path / "lock"
    assert look(path, lock).presence is Presence.STOPPED
    with NodeLock(lock):
        assert look(path, lock).presence is Presence.OTHER
        write(OURS, path)
        assert look(path, lock) == Sight(Presence.RUNNING, OURS, os.getpid())
        write(replace(OURS, start_ticks=OURS.start_ticks - 1), path)  # its pid was given to another process
        assert look(path, lock).presence is Presence.OTHER
        write(replace(OURS, pid=1), path)  # in another pid namespace
        assert look(path, lock).presence is Presence.RUNNING
        write(replace(OURS, start_ticks=None), path)  # an earlier version
        assert look(path, lock).presence is Presence.RUNNING
        write(replace(OURS, start_ticks=None, pid=1), path)
        assert look(path, lock).presence is Presence.OTHER
    gone = look(path, lock)
    assert (gone.presence, gone.status is None) == (Presence.STOPPED, False)


def test_looking_writes_nothing_and_takes_no_lock(tmp_path: Path) -> None:
    path, lock = tmp_path / "status.json", tmp_path / "lock"
    look(path, lock)
    assert list(tmp_path.iterdir()) == []
    write(OURS, path)
    lock.touch()
    before = [(one.name, one.stat().st_mtime_ns) for one in sorted(tmp_path.iterdir())]
    look(path, lock)
    assert [(one.name, one.stat().st_mtime_ns) for one in sorted(tmp_path.iterdir())] == before
    with NodeLock(lock):
        pass


def test_a_daemon_that_stops_is_remembered_with_the_time_it_was_last_seen() -> None:
    sights = [Sight(Presence.RUNNING, STATUS, 4711), Sight(Presence.STOPPED, None), Sight(Presence.OTHER, None, 99)]
    clock = iter([NOW, NOW + 5, NOW + 9])
    viewer = Viewer(iter(sights).__next__, clock.__next__)
    assert viewer.view().status == STATUS
    gone = viewer.view()
    assert (gone.status, gone.last, gone.seen_until_unix_s) == (None, STATUS, NOW)
    other = viewer.view()
    assert (other.status, other.last, other.seen_until_unix_s, other.sight.holder) == (None, STATUS, NOW, 99)


def test_one_that_was_never_seen_ended_after_its_last_update() -> None:
    viewer = Viewer(lambda: Sight(Presence.STOPPED, STATUS), lambda: NOW)
    assert viewer.view().seen_until_unix_s == STATUS.updated_unix_s
    assert Viewer(lambda: Sight(Presence.STOPPED, None), lambda: NOW).view().seen_until_unix_s is None
