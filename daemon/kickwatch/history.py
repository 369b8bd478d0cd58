"""The history: every trial record whole, and the detectors' state, in one SQLite file that outlives kill -9.

A trial and the state that includes it are one transaction: after a crash nothing but the open trial is missing, and the
evidence goes on where it was. The store never stops the watch: what cannot be read is set aside under a new name, what
cannot be written is said, and tried again with the next trial. Calls block: use `asyncio.to_thread`.
"""

import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from kickwatch.errors import KickwatchError
from kickwatch.model import Trial

T = TypeVar("T")

FILE_NAME = "history.db"
DEFAULT_MAX_AGE_S = 90 * 86_400.0
DEFAULT_MAX_BYTES = 64 << 20
_BUSY_S = 5.0
_PRUNE_SHARE = 10  # of the rows, oldest first, at a time: one in ten
# Each entry brings a file of its index's version to the next one (PRAGMA user_version).
_MIGRATIONS = (
    """
    CREATE TABLE trial (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        started_unix_s REAL NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), detectors BLOB NOT NULL) STRICT;
    """,
)


class HistoryError(KickwatchError):
    """A history file that cannot be read: for `replay` and `report`, which were given one; the daemon goes on."""


class History:
    """The store in the state directory. `said` collects what a person should hear; the caller takes and logs it."""

    def __init__(
        self, directory: Path, *, max_age_s: float = DEFAULT_MAX_AGE_S, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        """Nothing is opened yet: the first call does that, in whichever thread it runs."""
        self._path = directory / FILE_NAME
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self.said: list[str] = []

    def append(self, trial: Trial, state: bytes) -> bool:
        """Keep one trial and the detectors' state after it, both or neither. False when it could not be kept."""
        blob = zlib.compress(msgspec.json.encode(trial), 6)

        def write(database: sqlite3.Connection) -> bool:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(
                    "INSERT INTO trial (started_unix_s, record) VALUES (?, ?)", (trial.started_unix_s, blob)
                )
                database.execute("INSERT OR REPLACE INTO state (id, detectors) VALUES (1, ?)", (state,))
            self._retain(database, trial.started_unix_s)
            return True

        return self._use(write, "keep the trial") or False

    def load_state(self) -> bytes | None:
        """The detectors' state after the newest kept trial; None for a new or unusable store."""

        def read(database: sqlite3.Connection) -> bytes | None:
            row = database.execute("SELECT detectors FROM state WHERE id = 1").fetchone()
            return bytes(row[0]) if row else None

        return self._use(read, "read the detectors' state")

    def trials(self) -> int:
        """How many trials are kept."""
        return (
            self._use(lambda database: int(database.execute("SELECT count(*) FROM trial").fetchone()[0]), "count") or 0
        )

    def close(self) -> None:
        """Close the file. A later call opens it again."""
        with self._lock:
            self._close()

    def take_said(self) -> list[str]:
        """What happened since it was last asked."""
        said, self.said = self.said, []
        return said

    def _use(self, work: Callable[[sqlite3.Connection], T], what: str) -> T | None:
        """Run `work` on the open file; a damaged file is set aside and the work done once more on a new one."""
        with self._lock:
            for attempt in range(2):
                try:
                    if self._database is None:
                        self._database = _open(self._path)
                    return work(self._database)
                except sqlite3.OperationalError as error:  # full, read-only, locked, cannot be opened: not damage
                    self._close()
                    self.said.append(f"{self._path}: could not {what} ({error}): free the disk or check the directory")
                    return None
                except (sqlite3.DatabaseError, zlib.error) as error:
                    self._close()
                    if attempt or not self._set_aside(str(error)):
                        return None
                except OSError as error:
                    self.said.append(f"{self._path}: could not {what} ({error.strerror}): check the state directory")
                    return None
        return None

    def _set_aside(self, reason: str) -> bool:
        """Rename a damaged file with its companions, so that a person can look at it, and start anew."""
        name = f"{FILE_NAME}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        try:
            self._path.rename(self._path.with_name(name))
            for suffix in ("-wal", "-shm"):
                self._path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        except OSError as error:
            self.said.append(f"{self._path} is damaged ({reason}) and cannot be set aside ({error.strerror})")
            return False
        self.said.append(f"{self._path} was damaged ({reason}): set aside as {name}, a new one is started")
        return True

    def _retain(self, database: sqlite3.Connection, now_unix_s: float) -> None:
        """Drop what is too old, and the oldest tenth while the file is too large."""
        with database:
            database.execute("DELETE FROM trial WHERE started_unix_s < ?", (now_unix_s - self._max_age_s,))
        while _bytes_in_use(database) > self._max_bytes:
            with database:
                count = int(database.execute("SELECT count(*) FROM trial").fetchone()[0])
                if count <= 1:
                    return
                database.execute(
                    "DELETE FROM trial WHERE number IN (SELECT number FROM trial ORDER BY number LIMIT ?)",
                    (max(1, count // _PRUNE_SHARE),),
                )

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # WAL: a crash of the process loses nothing
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > len(_MIGRATIONS):
        raise sqlite3.DatabaseError(f"schema version {version} is of a newer kickwatch")
    for number in range(version, len(_MIGRATIONS)):
        database.executescript(f"BEGIN;{_MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")


def _bytes_in_use(database: sqlite3.Connection) -> int:
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def read_history(path: Path) -> Iterator[Trial]:
    """Every trial of a history file or its copy, oldest first, one at a time. Raises HistoryError."""
    if not path.is_file():
        raise HistoryError(f"{path} is no file", "name a history.db or a file of JSON lines")
    decoder = msgspec.json.Decoder(Trial)
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            for (blob,) in database.execute("SELECT record FROM trial ORDER BY number"):
                yield decoder.decode(zlib.decompress(blob))
        finally:
            database.close()
    except (sqlite3.Error, zlib.error, msgspec.MsgspecError) as error:
        raise HistoryError(f"{path} cannot be read ({error})", "is it a whole history file of kickwatch?") from error


def read_lines(path: Path) -> Iterator[Trial]:
    """Every trial of a file of JSON lines. Raises HistoryError naming the line."""
    decoder = msgspec.json.Decoder(Trial)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield decoder.decode(line)
                    except msgspec.MsgspecError as error:
                        raise HistoryError(
                            f"{path}, line {number}: {error}", "each line is one trial record"
                        ) from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be read ({error.strerror})", "name a readable file") from error


def read_trials(path: Path) -> Iterator[Trial]:
    """Either of the two, told by the file's first bytes."""
    try:
        with path.open("rb") as file:
            magic = file.read(16)
    except OSError as error:
        raise HistoryError(f"{path} cannot be read ({error.strerror})", "name a readable file") from error
    return read_history(path) if magic == b"SQLite format 3\0" else read_lines(path)
