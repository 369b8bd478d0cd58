"""Stores that cannot be used: moved to another name beside the history. Of damaged ones the newest three are kept.

Every function raises OSError.
"""

from pathlib import Path

from kickwatch.history.store import StoreTrouble, fault_of

MAX_DAMAGED = 3


def set_aside(path: Path, trouble: StoreTrouble) -> Path:
    """Rename the store at `path` to the first free name, `history-<trouble>-<number>.db`, and return that."""
    names = (path.with_name(f"history-{trouble}-{number}.db") for number in range(1, 10_000))
    target = next(name for name in names if not name.exists())
    for old, new in zip(_files(path), _files(target), strict=True):
        if old.exists():
            old.rename(new)
    return target


def prune_damaged(directory: Path) -> list[Path]:
    """Remove the oldest damaged stores beyond three, and return their names. A store that may be sound stays."""
    candidates = [path for path in directory.glob(f"history-{StoreTrouble.CORRUPT}-*.db") if path.is_file()]
    candidates.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    removed = [path for path in candidates[:-MAX_DAMAGED] if fault_of(path)]
    for path in removed:
        for file in _files(path):
            file.unlink(missing_ok=True)
    return removed


def _files(path: Path) -> list[Path]:
    """A database and the files that SQLite keeps beside it."""
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
