"""The database of the history: its tables, how it is opened, and what SQLite's errors mean. No policy.

In WAL mode a reader never blocks the daemon and the daemon never blocks a reader, and a kill at any moment leaves a
transaction either complete or absent. Each use opens and closes its own connection: no connection crosses threads, and
the write-ahead log is empty between two trials.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from kickwatch.errors import KickwatchError

APPLICATION_ID = 0x6B69636B  # "kick"
BUSY_S = 5.0
_LEAST_FREE_BYTES = 64 * 1024  # the index of the write-ahead log takes 32 KiB at a time
_CACHE_KIB = 256  # of pages; the default, 2 MiB, fills up over months. A trial is written in a few pages
# Never changed once released; a new version appends a script. user_version counts the scripts that have run.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE trials (
        id INTEGER PRIMARY KEY,
        trial TEXT NOT NULL,
        started_unix_s REAL NOT NULL,
        containers INTEGER NOT NULL,  -- the pace that set the thresholds
        period_s REAL NOT NULL,
        outcome BLOB NOT NULL,        -- JSON
        record BLOB NOT NULL          -- JSON, compressed
    );
    CREATE TABLE states (
        after INTEGER PRIMARY KEY,    -- the id of the trial after which this was the evidence
        begins INTEGER NOT NULL,      -- 1: does not follow from the trials before
        state BLOB NOT NULL           -- JSON, compressed
    );
    """,
)


class StoreTrouble(StrEnum):
    """Why a store cannot be used."""

    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    NEWER = "newer"
    FULL = "full"
    IO = "io"
    BUSY = "busy"
    UNWRITABLE = "unwritable"


class StoreError(KickwatchError):
    """The store cannot be used."""

    def __init__(self, trouble: StoreTrouble, what: str, remedy: str) -> None:
        """`trouble` decides what is done with the store."""
        super().__init__(what, remedy)
        self.trouble = trouble


_REMEDIES = {
    StoreTrouble.CORRUPT: "kickwatch no longer uses it; `sqlite3 FILE .recover` may read it",
    StoreTrouble.FOREIGN: "it is not kickwatch's; set state.directory to a directory that only kickwatch uses",
    StoreTrouble.NEWER: "a newer kickwatch wrote it; use that version, or set another state.directory",
    StoreTrouble.FULL: "free space on the disk of state.directory; kickwatch tries again with the next trial",
    StoreTrouble.IO: "check the disk of state.directory (`dmesg`); kickwatch tries again with the next trial",
    StoreTrouble.BUSY: "another process has locked it; kickwatch tries again",
    StoreTrouble.UNWRITABLE: "make state.directory writable for kickwatch, or set another one",
}
_TROUBLES = {
    sqlite3.SQLITE_NOTADB: StoreTrouble.CORRUPT,
    sqlite3.SQLITE_CORRUPT: StoreTrouble.CORRUPT,
    sqlite3.SQLITE_ERROR: StoreTrouble.CORRUPT,  # a table or a column is missing
    sqlite3.SQLITE_MISMATCH: StoreTrouble.CORRUPT,
    sqlite3.SQLITE_CONSTRAINT: StoreTrouble.CORRUPT,
    sqlite3.SQLITE_FORMAT: StoreTrouble.CORRUPT,
    sqlite3.SQLITE_BUSY: StoreTrouble.BUSY,
    sqlite3.SQLITE_LOCKED: StoreTrouble.BUSY,
    sqlite3.SQLITE_FULL: StoreTrouble.FULL,
    sqlite3.SQLITE_IOERR: StoreTrouble.IO,
}
# Errors that another way of opening may avoid.
_RETRY_OTHER_MODE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_COLUMNS = {
    "trials": "id, trial, started_unix_s, containers, period_s, outcome, record",
    "states": "after, begins, state",
}


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the store at `path`, which is created and migrated if necessary. Raises StoreError."""
    with _explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            _prepare(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a store that exists. Raises StoreError."""
    if not path.is_file():
        raise StoreError(StoreTrouble.UNWRITABLE, f"{path} is not a file", "give a history or a file of trial records")
    with _explained(path):
        connection = _open_to_read(path)
        try:
            _check(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything, or on an error nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def used_bytes(connection: sqlite3.Connection) -> int:
    """Size of the pages in use."""
    pragmas = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in pragmas)
    return (pages - free) * size


def is_empty(connection: sqlite3.Connection) -> bool:
    """True if kickwatch was killed while it created the store."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return not version


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect only on an empty database
    version = _check(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        with transaction(connection):
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The store's version; 0 for an empty file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or version or application):
        raise _error(StoreTrouble.FOREIGN, f"{path} is another program's database")
    if version > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise _error(StoreTrouble.NEWER, f"{path} has version {version}; this kickwatch reads versions up to {known}")
    return int(version)


def fault_of(path: Path) -> StoreError | None:
    """Why the store at `path` can never be used again; None if it may be sound. Reads the whole store, and blocks.

    One error proves nothing: a failing disk, a full disk or a bug in one of our statements can look like a damaged
    store. So this opens it again and checks all of it. An error that prevents the check is not the store's fault.
    """
    try:
        with _explained(path):
            connection = _open_to_read(path, exact=True)
            try:
                _check(connection, path)
                damage = _damage(connection)
            finally:
                connection.close()
    except StoreError as error:
        return error if error.trouble in {StoreTrouble.CORRUPT, StoreTrouble.NEWER} else None
    return _error(StoreTrouble.CORRUPT, f"{path}: {damage}") if damage else None


def _damage(connection: sqlite3.Connection) -> str:
    """The damage found in pages, tables or trial numbers; empty if there is none."""
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok" or is_empty(connection):
        return "" if result == "ok" else str(result)
    for table, columns in _COLUMNS.items():
        connection.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchone()  # noqa: S608 -- raises if one is missing
    ahead = connection.execute("SELECT max(after) > coalesce((SELECT max(id) FROM trials), 0) FROM states").fetchone()
    return "it has evidence of trials that it does not have" if ahead[0] else ""


def _open_to_read(path: Path, *, exact: bool = False) -> sqlite3.Connection:
    """Open as a writer that writes nothing, which leaves no files behind; on a read-only file system, as a reader.

    A reader of a WAL database must be able to create its index file. If there is no space for that, the index is held
    in memory, which locks the database; if nothing can be written at all, the write-ahead log is ignored, which is not
    `exact`.
    """
    modes = [("mode=rw", ""), ("mode=ro", ""), ("mode=rw", "PRAGMA locking_mode = EXCLUSIVE")]
    refused: sqlite3.OperationalError | None = None
    for mode, first in modes if exact else [*modes, ("mode=ro&immutable=1", "")]:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}", timeout=BUSY_S, isolation_level=None, uri=True
        )
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute(first)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if _code(error) not in _RETRY_OTHER_MODE:
                raise
            refused = refused or error
        except BaseException:  # such as "file is not a database"
            connection.close()
            raise
        else:
            return connection
    raise refused or _error(StoreTrouble.UNWRITABLE, f"{path} cannot be opened")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        trouble = _TROUBLES.get(_code(error), StoreTrouble.UNWRITABLE)
        if trouble is StoreTrouble.IO and _is_full(path.parent):
            trouble = StoreTrouble.FULL
        raise _error(trouble, f"{path}: {error}") from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary error code; 0 if the error comes from Python."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_full(directory: Path) -> bool:
    """True if the disk is full: without space for the index of its log SQLite reports an I/O error."""
    try:
        system = os.statvfs(directory)
    except OSError:
        return False
    return system.f_bavail * system.f_frsize < _LEAST_FREE_BYTES


def _error(trouble: StoreTrouble, what: str) -> StoreError:
    return StoreError(trouble, what, _REMEDIES[trouble])
