"""The history: every trial record, its outcome, and the evidence after it, in the state directory.

A trial and its evidence are written in one transaction, so a killed daemon loses only the open trial, and the next one
continues with the evidence of the last finished one. Nothing here raises to its caller: problems are returned as notes
to log. A store that is damaged, or was written by a newer kickwatch, is moved to another name and a new one is started.
A disk that is full, failing or read-only is not the store's fault: the store stays, and the trials wait in memory until
they can be appended.

A replay must start with the evidence the daemon had. Where that does not follow from the trials before (a new store,
trials that could not be written, evidence that a newer release dropped), the evidence itself is stored. Retention
removes the oldest trials in whole blocks; each block ends at a trial after which the evidence is stored.

Synchronous; call it through `asyncio.to_thread`.
"""

import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from kickwatch.history import reserve, statements
from kickwatch.history.backlog import Backlog, Entry
from kickwatch.history.set_aside import prune_damaged, set_aside
from kickwatch.history.store import StoreError, StoreTrouble, fault_of, is_empty, reading, transaction, writing

T = TypeVar("T")
FILE = "history.db"
_DAY_S = 86_400.0
_UNUSABLE = frozenset({StoreTrouble.CORRUPT, StoreTrouble.NEWER})
_NEEDS_ROOM = frozenset({StoreTrouble.FULL, StoreTrouble.IO})


class Retention(msgspec.Struct, frozen=True):
    """The oldest trial to keep, and the largest size of the store."""

    age_s: float = 90 * _DAY_S
    size_bytes: int = 256 * 1024 * 1024


class Note(msgspec.Struct, frozen=True):
    """A problem to log. `aside` is the new path of an unusable store; empty if none was moved."""

    what: str
    remedy: str
    aside: str = ""


class Resumed(msgspec.Struct, frozen=True):
    """The store can be written again: trials appended now, trials lost because memory was full, seconds it lasted."""

    appended: int
    lost: int
    troubled_s: float


class AppendResult(msgspec.Struct, frozen=True):
    """Whether the trials are in the store, and what to log. Trials that are not are tried again with the next call."""

    kept: bool
    notes: tuple[Note, ...] = ()
    resumed: Resumed | None = None


class StoredEvidence(msgspec.Struct, frozen=True):
    """The evidence after the last stored trial. Empty if there is none, or if it is `unread`: there may be some."""

    state: bytes = b""
    notes: tuple[Note, ...] = ()
    unread: bool = False


class History:
    """The store in one state directory."""

    def __init__(self, directory: Path, retention: Retention | None = None, backlog: Backlog | None = None) -> None:
        """Nothing is touched before the first use. `backlog`: trials that another store could not take."""
        self.path = directory / FILE
        self.retention = retention or Retention()
        self._backlog = Backlog() if backlog is None else backlog
        self._reported: set[StoreTrouble] = set()  # each kind is logged once while the trouble lasts
        self._troubled_at: float | None = None
        self._written = self._tried = self._on_reserve = False

    def moved(self, directory: Path) -> Self:
        """The store in another directory, with the trials that wait for this one."""
        return type(self)(directory, self.retention, self._backlog)

    def load(self) -> StoredEvidence:
        """The evidence to continue with after a start."""
        try:
            state = self._read(statements.newest_state, None)
            return StoredEvidence(b"" if state is None else zlib.decompress(state))
        except StoreError as error:
            fault = self._confirmed_fault(error)
            notes = self._set_aside(fault) if fault else self._report_once(_not_damaged(error))
            return StoredEvidence(notes=notes, unread=fault is None)
        except zlib.error as error:
            return StoredEvidence(notes=(Note(f"{self.path}: {error}", "the evidence starts again from nothing"),))
        except OSError as error:
            return StoredEvidence(notes=self._report_once(_unreachable(self.path, error)), unread=True)

    def append(self, *entries: Entry, carried: bytes = b"") -> AppendResult:
        """Store these trials and all that wait, in order, in one transaction.

        `carried`: the evidence that the next trial starts with, if it comes from another directory.
        """
        self._backlog.add(entries)
        try:
            notes = self._write(carried)
        except StoreError as error:
            return self._retry(error, carried)
        except OSError as error:
            return self._deferred(_unreachable(self.path, error))
        return self._appended(notes)

    def flush(self) -> AppendResult:
        """At the end of the daemon: try once more to store what waits, and name what is lost."""
        if not len(self._backlog):
            return AppendResult(kept=True)
        done = self.append()
        lost = len(self._backlog) + self._backlog.lost
        what = f"{self.path}: {lost} trials could not be kept, and are lost when this daemon ends"
        note = Note(what, "see the history_trouble record before")
        return done if done.kept else AppendResult(kept=False, notes=(*done.notes, note))

    def spent(self, since_unix_s: float) -> list[tuple[float, int]] | None:
        """(start, containers) of each trial of the last day that started since then; None if the store is unreadable.

        Only finished trials: the containers of a failed trial are not here.
        """
        try:
            return self._read(lambda connection: statements.spent(connection, since_unix_s), [])
        except (StoreError, OSError):
            return None  # `load` has logged it

    def _read(self, query: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """The result of `query`; `nothing` without a store, or if it was never finished. Raises StoreError, OSError."""
        if not self.path.exists():
            return nothing
        with reading(self.path) as connection:
            return nothing if is_empty(connection) else query(connection)

    def _write(self, carried: bytes = b"") -> tuple[Note, ...]:
        """Append what waits. Returns a note if another process removed the store. Raises StoreError, OSError."""
        removed = self._written and not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tried, self._tried = self._tried, True
        with writing(self.path) as connection:
            with transaction(connection):
                for pending in self._backlog:
                    if not (tried and statements.is_stored(connection, pending)):
                        statements.insert(connection, pending)
                if carried:
                    statements.store_start(connection, zlib.compress(carried))
                oldest_unix_s = self._backlog.newest_unix_s - self.retention.age_s
                pruned = statements.prune(connection, oldest_unix_s, self.retention.size_bytes)
            if pruned:
                with suppress(sqlite3.Error):  # the trials are stored; freeing the space can wait
                    connection.execute("PRAGMA incremental_vacuum").fetchall()
        self._written = True
        reserve.hold(self.path.parent)
        what = f"{self.path} was removed by another process; a new history is started"
        remedy = "the evidence continues; use a state.directory that nothing else cleans up"
        return (Note(what, remedy),) if removed else ()

    def _appended(self, notes: tuple[Note, ...]) -> AppendResult:
        """Everything is in the store; the first time after a trouble, the result says so.

        If the trials took the reserved space, the disk counts as full until the space can be reserved again.
        """
        appended, lost = len(self._backlog), self._backlog.lost
        self._backlog.clear()
        self._tried = False
        self._on_reserve = self._on_reserve and not reserve.is_held(self.path.parent)
        if self._on_reserve or self._troubled_at is None:
            return AppendResult(kept=True, notes=notes)
        since, self._troubled_at = self._troubled_at, None
        self._reported.clear()
        resumed = Resumed(appended, lost, round(time.monotonic() - since, 1))
        return AppendResult(kept=True, notes=notes, resumed=resumed)

    def _deferred(self, error: StoreError, *before: Note) -> AppendResult:
        """The trials wait in memory."""
        return AppendResult(kept=False, notes=(*before, *self._report_once(error)))

    def _report_once(self, error: StoreError) -> tuple[Note, ...]:
        """The note of `error`; none if this kind of trouble was reported already and still lasts."""
        known = error.trouble in self._reported
        self._reported.add(error.trouble)
        self._troubled_at = time.monotonic() if self._troubled_at is None else self._troubled_at
        return () if known else (Note(error.what, error.remedy),)

    def _confirmed_fault(self, error: StoreError) -> StoreError | None:
        """The fault of the store itself that raised `error`; None if it has none, or if that cannot be checked."""
        if error.trouble not in _UNUSABLE:
            return None
        with suppress(OSError):
            return fault_of(self.path)
        return None

    def _retry(self, error: StoreError, carried: bytes) -> AppendResult:
        """Try again at once if something can be done: move a damaged store away, or free space on a full disk."""
        if fault := self._confirmed_fault(error):
            notes = self._set_aside(fault)
        elif error.trouble in _NEEDS_ROOM and reserve.release(self.path.parent):
            self._on_reserve = True
            notes = self._report_once(error)
        else:
            return self._deferred(_not_damaged(error))
        try:
            self._write(carried)
        except StoreError as again:
            return self._deferred(again, *notes)
        except OSError as again:
            return self._deferred(_unreachable(self.path, again), *notes)
        return self._appended(notes)

    def _set_aside(self, error: StoreError) -> tuple[Note, ...]:
        try:
            aside = set_aside(self.path, error.trouble)
        except OSError as failure:
            what = f"{error.what}; it cannot be renamed ({failure.strerror})"
            return self._report_once(StoreError(error.trouble, what, error.remedy))
        notes = [Note(f"{error.what}; set aside as {aside}, and a new history is started", error.remedy, str(aside))]
        with suppress(OSError):  # tried again with the next damaged store
            remedy = "only the newest three damaged stores are kept"
            notes += [Note(f"{path} was removed", remedy) for path in prune_damaged(self.path.parent)]
        return tuple(notes)


def _not_damaged(error: StoreError) -> StoreError:
    """`error` as it is logged: one that looks like damage, in a store without any, becomes UNWRITABLE."""
    if error.trouble not in _UNUSABLE:
        return error
    remedy = "no damage was found in the store; kickwatch tries again with the next trial"
    return StoreError(StoreTrouble.UNWRITABLE, error.what, remedy)


def _unreachable(path: Path, error: OSError) -> StoreError:
    what = f"{path} cannot be used ({error.strerror})"
    return StoreError(StoreTrouble.UNWRITABLE, what, "make state.directory writable for kickwatch, or set another one")
