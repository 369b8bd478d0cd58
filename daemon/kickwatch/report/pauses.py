"""The guard's pauses from the daemon's log, which the history does not store. Pure.

Two forms are read, line by line: kickwatch's own JSON lines, and `journalctl -o json`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

MOST_PAUSES = 300
_PAUSED, _RESUMED = "kickwatch.paused", "kickwatch.resumed"


def pauses_of(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Each pause with `first_unix_s`, `last_unix_s` (None: not over at the end of the log) and its `reasons`.

    Lines that are no records of the guard are passed over. Of more than MOST_PAUSES the longest stay.
    """
    found: list[dict[str, Any]] = []
    for line in lines:
        record = _record(line)
        if record is None:
            continue
        event, unix_s, paused_s, reasons = record
        if event == _PAUSED:
            found.append({"first_unix_s": unix_s, "last_unix_s": None, "reasons": reasons})
        elif found and found[-1]["last_unix_s"] is None:
            found[-1]["last_unix_s"] = unix_s
        elif paused_s is not None:  # the log begins within the pause
            found.append({"first_unix_s": unix_s - paused_s, "last_unix_s": unix_s, "reasons": reasons})
    longest = sorted(found, key=lambda one: one["first_unix_s"] - (one["last_unix_s"] or float("inf")))
    return sorted(longest[:MOST_PAUSES], key=lambda one: one["first_unix_s"])


def _record(line: bytes) -> tuple[str, float, float | None, list[str]] | None:
    if b"kickwatch." not in line:
        return None
    try:
        record = msgspec.json.decode(line)
        event = record.get("event") or record.get("KICKWATCH_EVENT")
        if event not in {_PAUSED, _RESUMED}:
            return None
        paused_s = record.get("paused_s", record.get("KICKWATCH_PAUSED_S"))
        reasons = record.get("reasons") or record.get("KICKWATCH_REASONS") or []
        reasons = msgspec.json.decode(reasons) if isinstance(reasons, str) else reasons
        return event, _moment(record), None if paused_s is None else float(paused_s), [str(each) for each in reasons]
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _moment(record: dict[str, Any]) -> float:
    if "__REALTIME_TIMESTAMP" in record:
        return int(record["__REALTIME_TIMESTAMP"]) / 1e6
    return datetime.fromisoformat(str(record["timestamp"])).timestamp()
