"""The history: every trial record whole, its outcome, and the evidence after it, in the state directory.

Trial and evidence are one transaction, so a killed daemon loses the open trial and nothing else, and continues in
mid-evidence. Nothing here raises to the watch: what happened is returned, to be logged. A store that is damaged, or was
written by a newer kickwatch, is set aside under a new name and a new one is begun. A disk that is full, fails or may
not be written is no fault of the store: it stays, and the trials wait in memory until they can be appended.

A replay must begin with the evidence that the watch had. So wherever that does not follow from the trials before (a new
store, trials that could not be kept, evidence that was dropped by a newer release), the evidence itself is kept; and
retention takes whole blocks from the old end, each up to a trial after which the evidence is kept.

Synchronous; call it through `asyncio.to_thread`.
"""

import sqlite3
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from kickwatch.history import reserve
from kickwatch.history.backlog import Backlog, Entry, Pending
from kickwatch.history.store import (
    StoreError,
    StoreTrouble,
    fault_of,
    is_empty,
    reading,
    transaction,
    used_bytes,
    writing,
)

FILE = "history.db"
BLOCK = 64  # trials between two states that are kept for a replay to begin with
MOST_ASIDE = 3
_DAY_S = 86_400.0
_ASIDE = frozenset({StoreTrouble.CORRUPT, StoreTrouble.NEWER})
_NEEDS_ROOM = frozenset({StoreTrouble.FULL, StoreTrouble.IO})
_LATELY = 1000  # trials among which one that was perhaps kept already is looked for
_FORGET_STATES = "DELETE FROM states WHERE after < ? AND after % ? <> 0 AND NOT begins"
_NEWEST_STATE = "SELECT after, state FROM states ORDER BY after DESC LIMIT 1"
_SPENT = """
    SELECT started_unix_s, containers FROM trials
    WHERE id > (SELECT max(id) FROM trials) - ? AND started_unix_s >= ? ORDER BY id
"""
_KEPT = "SELECT 1 FROM trials WHERE id > (SELECT max(id) FROM trials) - ? AND trial = ? AND record = ?"
_MOST_A_DAY = 20_000  # trials: more do not fit into a day
_OLDEST_BLOCK = """
    SELECT trials.id, trials.started_unix_s FROM trials JOIN states ON states.after = trials.id
    WHERE trials.id % ? = 0 ORDER BY trials.id LIMIT 1
"""


class Retention(msgspec.Struct, frozen=True):
    """How long, and how much."""

    age_s: float = 90 * _DAY_S
    size_bytes: int = 256 * 1024 * 1024


class Note(msgspec.Struct, frozen=True):
    """Something to be said aloud. `aside` names where an unusable store went, if one did."""

    what: str
    remedy: str
    aside: str = ""


class Resumed(msgspec.Struct, frozen=True):
    """The history is written again: trials appended now, trials lost meanwhile for lack of memory, seconds since."""

    appended: int
    lost: int
    troubled_s: float


class Kept(msgspec.Struct, frozen=True):
    """Whether the trials are in the history, and what there is to log. What is not kept is tried again by itself."""

    kept: bool
    notes: tuple[Note, ...] = ()
    resumed: Resumed | None = None


class Found(msgspec.Struct, frozen=True):
    """The evidence of the last trial kept; empty where there is none, or where it is `unread`: there may be some."""

    state: bytes = b""
    notes: tuple[Note, ...] = ()
    unread: bool = False


class History:
    """The store in one state directory."""

    def __init__(self, directory: Path, retention: Retention | None = None, backlog: Backlog | None = None) -> None:
        """Nothing is touched before the first use. `backlog`: what another store could not take."""
        self.path = directory / FILE
        self.retention = retention or Retention()
        self._backlog = Backlog() if backlog is None else backlog
        self._said: set[StoreTrouble] = set()  # of the trouble that lasts: each kind is logged once
        self._troubled_at: float | None = None
        self._written = self._tried = self._on_reserve = False

    def moved(self, directory: Path) -> Self:
        """The store in another directory, with the trials that wait for this one."""
        return type(self)(directory, self.retention, self._backlog)

    def load(self) -> Found:
        """The evidence to continue with, after a start."""
        try:
            return Found(self._newest_state())
        except StoreError as error:
            fault = self._fault(error)
            notes = self._set_aside(fault) if fault else self._once(_doubtful(error))
            return Found(notes=notes, unread=fault is None)
        except zlib.error as error:
            return Found(notes=(Note(f"{self.path}: {error}", "the evidence starts again from nothing"),))
        except OSError as error:
            return Found(notes=self._once(_unreachable(self.path, error)), unread=True)

    def append(self, *entries: Entry, carried: bytes = b"") -> Kept:
        """Keep these trials and all that wait, in order, in one transaction.

        `carried`: the evidence that the next trial begins with, where it comes from another directory.
        """
        self._backlog.add(entries)
        try:
            gone = self._write(carried)
        except StoreError as error:
            return self._retried(error, carried)
        except OSError as error:
            return self._refused(_unreachable(self.path, error))
        return self._kept(gone)

    def flush(self) -> Kept:
        """At the end of the daemon: what waits is tried once more, and what is lost is named."""
        if not len(self._backlog):
            return Kept(kept=True)
        done = self.append()
        lost = len(self._backlog) + self._backlog.lost
        what = f"{self.path}: {lost} trials could not be kept, and are lost with the end of this daemon"
        return done if done.kept else Kept(kept=False, notes=(*done.notes, Note(what, "see the trouble before")))

    def spent(self, since_unix_s: float) -> list[tuple[float, int]] | None:
        """When each trial of the last day began since then, and its containers; None where the store cannot be read.

        Trials that came to their end: what a trial that failed has spent is not here.
        """
        try:
            if not self.path.exists():
                return []
            with reading(self.path) as connection:
                return (
                    [] if is_empty(connection) else connection.execute(_SPENT, (_MOST_A_DAY, since_unix_s)).fetchall()
                )
        except (StoreError, OSError):
            return None  # `load` has logged it

    def _newest_state(self) -> bytes:
        if not self.path.exists():
            return b""
        with reading(self.path) as connection:
            if is_empty(connection):
                return b""
            row = connection.execute(_NEWEST_STATE).fetchone()
        return zlib.decompress(row[1]) if row else b""

    def _write(self, carried: bytes = b"") -> tuple[Note, ...]:
        """Append what waits. Returns the note of a store that somebody has removed. Raises StoreError, OSError."""
        gone = self._written and not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tried, self._tried = self._tried, True
        with writing(self.path) as connection:
            with transaction(connection):
                for pending in self._backlog:
                    if not (tried and _is_kept(connection, pending)):
                        _insert(connection, pending)
                if carried:
                    _join(connection, zlib.compress(carried))
                pruned = self._prune(connection, self._backlog.newest_unix_s)
            if pruned:
                with suppress(sqlite3.Error):  # the trials are kept, whatever becomes of the room that others left
                    connection.execute("PRAGMA incremental_vacuum").fetchall()
        self._written = True
        reserve.hold(self.path.parent)
        what = f"{self.path} was removed by another process; a new history is begun"
        return (Note(what, "the evidence continues; give state.directory a place of its own"),) if gone else ()

    def _kept(self, notes: tuple[Note, ...]) -> Kept:
        """All is in the store; the first time after a trouble that is worth a record.

        A disk on which the trials took the room held in reserve is full until that can be held again.
        """
        appended, lost = len(self._backlog), self._backlog.lost
        self._backlog.clear()
        self._tried = False
        self._on_reserve = self._on_reserve and not reserve.is_held(self.path.parent)
        if self._on_reserve or self._troubled_at is None:
            return Kept(kept=True, notes=notes)
        since, self._troubled_at = self._troubled_at, None
        self._said.clear()
        return Kept(kept=True, notes=notes, resumed=Resumed(appended, lost, round(time.monotonic() - since, 1)))

    def _refused(self, error: StoreError, *before: Note) -> Kept:
        """The trials wait."""
        return Kept(kept=False, notes=(*before, *self._once(error)))

    def _once(self, error: StoreError) -> tuple[Note, ...]:
        """Each kind of trouble once, while it lasts."""
        known = error.trouble in self._said
        self._said.add(error.trouble)
        self._troubled_at = time.monotonic() if self._troubled_at is None else self._troubled_at
        return () if known else (_note(error),)

    def _fault(self, error: StoreError) -> StoreError | None:
        """What is wrong with the store itself, if that is what raised `error`; None also where it cannot be known."""
        if error.trouble not in _ASIDE:
            return None
        with suppress(OSError):
            return fault_of(self.path)
        return None

    def _retried(self, error: StoreError, carried: bytes) -> Kept:
        """Once more at once, where something can be done: a damaged store is set aside, room is made on a full disk."""
        if fault := self._fault(error):
            notes = self._set_aside(fault)
        elif error.trouble in _NEEDS_ROOM and reserve.release(self.path.parent):
            self._on_reserve = True
            notes = self._once(error)
        else:
            return self._refused(_doubtful(error))
        try:
            self._write(carried)
        except StoreError as again:
            return self._refused(again, *notes)
        except OSError as again:
            return self._refused(_unreachable(self.path, again), *notes)
        return self._kept(notes)

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

    def _set_aside(self, error: StoreError) -> tuple[Note, ...]:
        names = (self.path.with_name(f"history-{error.trouble}-{number}.db") for number in range(1, 10_000))
        try:
            aside = next(name for name in names if not name.exists())
            _move(self.path, aside)
        except OSError as failure:
            what = f"{error.what}; it cannot be set aside ({failure.strerror})"
            return self._once(StoreError(error.trouble, what, error.remedy))
        what = f"{error.what}; set aside as {aside}, and a new history is begun"
        note = Note(what, error.remedy, str(aside))
        with suppress(OSError):  # they are looked at again with the next one
            return (note, *self._forget_aside())
        return (note,)

    def _forget_aside(self) -> tuple[Note, ...]:
        """Remove the oldest damaged stores beyond three. What may be sound is never removed."""
        aside = [path for path in self.path.parent.glob("history-corrupt-*.db") if path.is_file()]
        aside.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        removed = [path for path in aside[:-MOST_ASIDE] if fault_of(path)]
        for path in removed:
            for file in _files(path):
                file.unlink(missing_ok=True)
        remedy = "of damaged stores only the newest three are kept"
        return tuple(Note(f"{path} was removed", remedy) for path in removed)


def _insert(connection: sqlite3.Connection, pending: Pending) -> None:
    _join(connection, pending.before)
    pace, columns = pending.pace, "trial, started_unix_s, containers, period_s, outcome, record"
    row = (
        pending.trial, pending.started_unix_s, pace.containers, pace.period_s, pending.outcome, pending.record
    )  # fmt: skip
    number = connection.execute(f"INSERT INTO trials ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row).lastrowid  # noqa: S608
    connection.execute("INSERT INTO states VALUES (?, 0, ?)", (number, pending.after))
    connection.execute(_FORGET_STATES, (number, BLOCK))


def _is_kept(connection: sqlite3.Connection, pending: Pending) -> bool:
    """Whether it is there although its transaction was reported to have failed: a commit whose sync failed."""
    return connection.execute(_KEPT, (_LATELY, pending.trial, pending.record)).fetchone() is not None


def _join(connection: sqlite3.Connection, before: bytes) -> None:
    """Keep the evidence that the next trial begins with (compressed), if it is not what the last one ended with."""
    after, state = connection.execute(_NEWEST_STATE).fetchone() or (0, zlib.compress(b""))
    if state != before and zlib.decompress(state) != zlib.decompress(before):
        connection.execute("REPLACE INTO states VALUES (?, 1, ?)", (after, before))


def _move(path: Path, target: Path) -> None:
    for source, goal in zip(_files(path), _files(target), strict=True):
        if source.exists():
            source.rename(goal)


def _files(path: Path) -> list[Path]:
    """A database and what SQLite keeps beside it."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def _note(error: StoreError) -> Note:
    return Note(error.what, error.remedy)


def _doubtful(error: StoreError) -> StoreError:
    """What looks like damage, and is none of the store."""
    if error.trouble not in _ASIDE:
        return error
    return StoreError(
        StoreTrouble.UNWRITABLE, error.what, "no damage is found in it; it is tried again with the next trial"
    )


def _unreachable(path: Path, error: OSError) -> StoreError:
    what = f"{path} cannot be used ({error.strerror})"
    return StoreError(StoreTrouble.UNWRITABLE, what, "let kickwatch write to state.directory, or set another")
