"""The history: every trial record whole, its outcome, and the evidence after it, in the state directory.

Trial and evidence are one transaction, so a killed daemon loses the open trial and nothing else, and goes on in
mid-evidence. Nothing here raises to the watch: what happened is returned, to be logged. A store that cannot be used is
set aside under a new name and a new one is begun.

A replay must begin with the evidence that the watch had. So wherever that does not follow from the trials before (a new
store, trials that could not be kept, evidence that was dropped by a newer release), the evidence itself is kept; and
retention takes whole blocks from the old end, each up to a trial after which the evidence is kept.

Synchronous; call it through `asyncio.to_thread`.
"""

import os
import sqlite3
import zlib
from pathlib import Path

import msgspec

from kickwatch.detect.rates import Pace
from kickwatch.detect.state import Outcome
from kickwatch.model import Trial
from kickwatch.store import StoreError, Trouble, is_empty, reading, transaction, used_bytes, writing

FILE = "history.db"
BLOCK = 64  # trials between two states that are kept for a replay to begin with
MOST_ASIDE = 3
RESERVE_FILE = "history.reserve"
RESERVE_BYTES = 256 * 1024
_DAY_S = 86_400.0
_ASIDE = frozenset({Trouble.CORRUPT, Trouble.NEWER, Trouble.FULL})
_FORGET_STATES = "DELETE FROM states WHERE after < ? AND after % ? <> 0 AND NOT begins"
_NEWEST_STATE = "SELECT after, state FROM states ORDER BY after DESC LIMIT 1"
_SPENT = """
    SELECT started_unix_s, containers FROM trials
    WHERE id > (SELECT max(id) FROM trials) - ? AND started_unix_s >= ? ORDER BY id
"""
_MOST_A_DAY = 20_000  # trials: more do not fit into a day
_OLDEST_BLOCK = """
    SELECT trials.id, trials.started_unix_s FROM trials JOIN states ON states.after = trials.id
    WHERE trials.id % ? = 0 ORDER BY trials.id LIMIT 1
"""


class Retention(msgspec.Struct, frozen=True):
    """How long, and how much."""

    age_s: float = 90 * _DAY_S
    size_bytes: int = 256 * 1024 * 1024


class Entry(msgspec.Struct, frozen=True):
    """One trial: its record, the evidence before and after it, what it said, and the pace its thresholds came from.

    `before` is empty where there was no evidence yet.
    """

    trial: Trial
    before: bytes
    outcome: Outcome
    after: bytes
    pace: Pace


class Note(msgspec.Struct, frozen=True):
    """Something to be said aloud. `aside` names where an unusable store went, if one did."""

    what: str
    remedy: str
    aside: str = ""


class Kept(msgspec.Struct, frozen=True):
    """Whether the trials are in the history, and what there is to say."""

    kept: bool
    notes: tuple[Note, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """The evidence of the last trial kept; empty where there is none."""

    state: bytes = b""
    notes: tuple[Note, ...] = ()


class History:
    """The store in one state directory."""

    def __init__(self, directory: Path, retention: Retention | None = None) -> None:
        """Nothing is touched before the first use."""
        self.path = directory / FILE
        self.retention = retention or Retention()

    def load(self) -> Found:
        """The evidence to go on with, after a start."""
        try:
            return Found(self._newest_state())
        except StoreError as error:
            notes = self._set_aside(error) if error.trouble in _ASIDE - {Trouble.FULL} else (_note(error),)
            return Found(notes=notes)
        except (OSError, zlib.error) as error:
            return Found(notes=(Note(f"{self.path}: {error}", "the evidence begins anew"),))

    def append(self, *entries: Entry) -> Kept:
        """Keep one trial, or several, in one transaction."""
        try:
            self._write(entries)
        except StoreError as error:
            return self._begin_anew(entries, error)
        except OSError as error:
            return Kept(kept=False, notes=(_no_directory(self.path, error),))
        return Kept(kept=True)

    def spent(self, since_unix_s: float) -> list[tuple[float, int]]:
        """When each trial of the last day began since then, and its containers; nothing where nothing can be read.

        Trials that came to their end: what a trial that failed has spent is not here.
        """
        if not self.path.exists():
            return []
        try:
            with reading(self.path) as connection:
                return (
                    [] if is_empty(connection) else connection.execute(_SPENT, (_MOST_A_DAY, since_unix_s)).fetchall()
                )
        except StoreError:
            return []  # `load` has said it

    def _newest_state(self) -> bytes:
        if not self.path.exists():
            return b""
        with reading(self.path) as connection:
            if is_empty(connection):
                return b""
            row = connection.execute(_NEWEST_STATE).fetchone()
        return zlib.decompress(row[1]) if row else b""

    def _write(self, entries: tuple[Entry, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path) as connection:
            with transaction(connection):
                for entry in entries:
                    _insert(connection, entry)
                pruned = self._prune(connection, entries[-1].trial.started_unix_s) if entries else 0
            if pruned:
                connection.execute("PRAGMA incremental_vacuum").fetchall()
        _reserve(self.path.parent)

    def _prune(self, connection: sqlite3.Connection, now_unix_s: float) -> int:
        """Take the oldest block if it is too old or there is too much: one at a time, so a wrong clock takes little."""
        oldest = connection.execute(_OLDEST_BLOCK, (BLOCK,)).fetchone()
        if oldest is None:
            return 0
        last, started_unix_s = oldest
        too_old = started_unix_s < now_unix_s - self.retention.age_s
        if not too_old and used_bytes(connection) <= self.retention.size_bytes:
            return 0
        connection.execute("DELETE FROM states WHERE after < ?", (last,))
        return connection.execute("DELETE FROM trials WHERE id <= ?", (last,)).rowcount

    def _begin_anew(self, entries: tuple[Entry, ...], error: StoreError) -> Kept:
        """Set the store aside and write to a new one. Where even that has no room, the old one stays where it was."""
        if error.trouble not in _ASIDE:
            return Kept(kept=False, notes=(_note(error),))
        (self.path.parent / RESERVE_FILE).unlink(missing_ok=True)
        notes = self._set_aside(error)
        try:
            self._write(entries)
        except (StoreError, OSError) as again:
            if error.trouble is Trouble.FULL and notes[0].aside:
                _move(Path(notes[0].aside), self.path)
                return Kept(kept=False, notes=(_note(error),))
            return Kept(kept=False, notes=(*notes, Note(f"{self.path}: {again}", "this trial is not in the history")))
        return Kept(kept=True, notes=notes)

    def _set_aside(self, error: StoreError) -> tuple[Note, ...]:
        names = (self.path.with_name(f"history-{error.trouble}-{number}.db") for number in range(1, 10_000))
        aside = next(name for name in names if not name.exists())
        try:
            _move(self.path, aside)
        except OSError as failure:
            return (_note(error), Note(f"{self.path} cannot be renamed ({failure.strerror})", "remove it by hand"))
        what = f"{error.what}; set aside as {aside}, and a new history is begun"
        return (Note(what, error.remedy, str(aside)), *self._forget_aside())

    def _forget_aside(self) -> tuple[Note, ...]:
        """Remove the oldest of what was set aside, beyond three."""
        aside = [path for path in self.path.parent.glob("history-*-*.db") if path.is_file()]
        aside.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in aside[:-MOST_ASIDE]:
            for file in _files(path):
                file.unlink(missing_ok=True)
        return tuple(Note(f"{path} was removed", "only three set aside are kept") for path in aside[:-MOST_ASIDE])


def _insert(connection: sqlite3.Connection, entry: Entry) -> None:
    _join(connection, entry.before)
    row = (
        entry.trial.trial_id,
        entry.trial.started_unix_s,
        entry.pace.containers,
        entry.pace.period_s,
        msgspec.json.encode(entry.outcome),
        zlib.compress(msgspec.json.encode(entry.trial)),
    )
    columns = "trial, started_unix_s, containers, period_s, outcome, record"
    number = connection.execute(f"INSERT INTO trials ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row).lastrowid  # noqa: S608
    connection.execute("INSERT INTO states VALUES (?, 0, ?)", (number, zlib.compress(entry.after)))
    connection.execute(_FORGET_STATES, (number, BLOCK))


def _join(connection: sqlite3.Connection, before: bytes) -> None:
    """Keep the evidence that the next trial begins with, if it is not what the last one ended with."""
    after, state = connection.execute(_NEWEST_STATE).fetchone() or (0, zlib.compress(b""))
    if zlib.decompress(state) != before:
        connection.execute("REPLACE INTO states VALUES (?, 1, ?)", (after, zlib.compress(before)))


def _reserve(directory: Path) -> None:
    """Hold some room, so that a new store can be begun on a disk that others have filled. No room, no reserve."""
    path = directory / RESERVE_FILE
    try:
        if path.exists():
            return
        system = os.statvfs(directory)
        size = min(RESERVE_BYTES, system.f_blocks * system.f_frsize // 4)
        if system.f_bavail * system.f_frsize > 2 * size:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
    except OSError:
        path.unlink(missing_ok=True)


def _move(path: Path, target: Path) -> None:
    for source, goal in zip(_files(path), _files(target), strict=True):
        if source.exists():
            source.rename(goal)


def _files(path: Path) -> list[Path]:
    """A database and what SQLite keeps beside it."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def _note(error: StoreError) -> Note:
    return Note(error.what, error.remedy)


def _no_directory(path: Path, error: OSError) -> Note:
    return Note(
        f"{path} cannot be written ({error.strerror})", "let kickwatch write to state.directory, or set another"
    )
