"""Trial records read back one at a time, from a history or from JSON lines: any number of them fits into memory."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kickwatch.detect.rates import Pace
from kickwatch.errors import KickwatchError
from kickwatch.history.store import is_empty, reading
from kickwatch.model import Trial

_SQLITE = b"SQLite format 3\0"
_ROWS = """
    SELECT trials.id, containers, period_s, outcome, record, state FROM trials LEFT JOIN states
    ON states.after = trials.id - 1 AND (states.begins OR trials.id = (SELECT min(id) FROM trials))
    ORDER BY trials.id
"""
_SHOWN_CHARS = 120


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """A trial record; from a history also its pace, and the stored outcome (JSON).

    `state` is the evidence to start from if it does not follow from the trials before; None if it does.
    """

    trial: Trial
    pace: Pace | None = None
    outcome: bytes = b""
    state: bytes | None = None


@contextmanager
def open_records(path: Path) -> Iterator[Iterator[RecordedTrial]]:
    """The trials of a history, of a copy of one, or of a file with one trial record per line, in order.

    Raises KickwatchError, also during iteration.
    """
    try:
        with path.open("rb") as file:
            database = file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        remedy = "give a history or a file of trial records"
        raise KickwatchError(f"{path} cannot be read ({error.strerror})", remedy) from error
    if not database:
        yield _lines(path)
        return
    with reading(path) as connection:
        yield iter(()) if is_empty(connection) else _rows(path, connection)


def _rows(path: Path, connection: sqlite3.Connection) -> Iterator[RecordedTrial]:
    decoder = msgspec.json.Decoder(Trial)
    for number, containers, period_s, outcome, record, state in connection.execute(_ROWS):
        try:
            trial = decoder.decode(zlib.decompress(record))
            begins = None if state is None else zlib.decompress(state)
        except (zlib.error, msgspec.DecodeError) as error:
            raise KickwatchError(f"{path}: trial {number} cannot be read ({error})", "the file is damaged") from error
        yield RecordedTrial(trial, Pace(containers, period_s), outcome, begins)


def _lines(path: Path) -> Iterator[RecordedTrial]:
    decoder = msgspec.json.Decoder(Trial)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield RecordedTrial(decoder.decode(line))
            except msgspec.DecodeError as error:
                what = f"{path}: line {number} is not a trial record ({str(error)[:_SHOWN_CHARS]})"
                raise KickwatchError(what, "give one JSON record per line, or a history") from error
