"""The SQL of the history's two tables: one function for each thing that is done to them. Each raises sqlite3.Error."""

import sqlite3
import zlib
from typing import Any

from kickwatch.history.backlog import Pending
from kickwatch.history.store import used_bytes

BLOCK = 64  # trials between two stored states from which a replay can start
_RECENT_TRIALS = 1000  # searched for a trial that a failed commit may have stored all the same
_MAX_TRIALS_PER_DAY = 20_000
_INSERT = "INSERT INTO trials (trial, started_unix_s, containers, period_s, outcome, record) VALUES (?, ?, ?, ?, ?, ?)"
_FORGET_STATES = "DELETE FROM states WHERE after < ? AND after % ? <> 0 AND NOT begins"
_NEWEST_STATE = "SELECT after, state FROM states ORDER BY after DESC LIMIT 1"
_SPENT = """
    SELECT started_unix_s, containers FROM trials
    WHERE id > (SELECT max(id) FROM trials) - ? AND started_unix_s >= ? ORDER BY id
"""
_IS_STORED = "SELECT 1 FROM trials WHERE id > (SELECT max(id) FROM trials) - ? AND trial = ? AND record = ?"
_OLDEST_BLOCK = """
    SELECT trials.id, trials.started_unix_s FROM trials JOIN states ON states.after = trials.id
    WHERE trials.id % ? = 0 ORDER BY trials.id LIMIT 1
"""


def newest_state(connection: sqlite3.Connection) -> bytes | None:
    """The evidence after the last trial (compressed); None if there is none."""
    row: tuple[int, bytes] | None = connection.execute(_NEWEST_STATE).fetchone()
    return None if row is None else row[1]


def spent(connection: sqlite3.Connection, since_unix_s: float) -> list[Any]:
    """(start, containers) of each trial since then. Trials of more than a day ago may be missing."""
    return connection.execute(_SPENT, (_MAX_TRIALS_PER_DAY, since_unix_s)).fetchall()


def insert(connection: sqlite3.Connection, pending: Pending) -> None:
    """Add a trial and the evidence after it. Only every BLOCK-th state is kept for long."""
    store_start(connection, pending.before)
    pace = pending.pace
    row = (pending.trial, pending.started_unix_s, pace.containers, pace.period_s, pending.outcome, pending.record)
    number = connection.execute(_INSERT, row).lastrowid
    connection.execute("INSERT INTO states VALUES (?, 0, ?)", (number, pending.after))
    connection.execute(_FORGET_STATES, (number, BLOCK))


def is_stored(connection: sqlite3.Connection, pending: Pending) -> bool:
    """True if the trial is there although its transaction reported an error: a commit whose sync failed."""
    return connection.execute(_IS_STORED, (_RECENT_TRIALS, pending.trial, pending.record)).fetchone() is not None


def store_start(connection: sqlite3.Connection, before: bytes) -> None:
    """Store the evidence that the next trial starts with (compressed), unless the last trial ended with the same."""
    after, state = connection.execute(_NEWEST_STATE).fetchone() or (0, zlib.compress(b""))
    if state != before and zlib.decompress(state) != zlib.decompress(before):
        connection.execute("REPLACE INTO states VALUES (?, 1, ?)", (after, before))


def prune(connection: sqlite3.Connection, oldest_unix_s: float, size_bytes: int) -> int:
    """Delete the oldest block if it is older than that or the store larger. Returns the number of trials deleted.

    One block per call, in case the clock is wrong.
    """
    oldest = connection.execute(_OLDEST_BLOCK, (BLOCK,)).fetchone()
    if oldest is None:
        return 0
    last, started_unix_s = oldest
    if started_unix_s >= oldest_unix_s and used_bytes(connection) <= size_bytes:
        return 0
    connection.execute("DELETE FROM states WHERE after < ?", (last,))
    return connection.execute("DELETE FROM trials WHERE id <= ?", (last,)).rowcount
