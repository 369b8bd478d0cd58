"""A textfile that a killed daemon left: its figures would look current for ever, and stand for a daemon that is gone.

Where the file is, is recorded in the directory of the state, because the next daemon may be configured with another
path, or none, and may not write where the file is: so there can be several. A removal (`deploy/install`, Debian
package, Ansible role) reads the same record. Loads nothing of Prometheus.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kickwatch.process.atomic_file import write_whole

RECORD = "textfile"  # in state.directory: the paths of the textfiles, with a null byte between two
_OURS = b"# HELP kickwatch_"


def record(directory: Path, textfile: str) -> None:
    """Note that the daemon writes this file. A record that cannot be written is left out."""
    with suppress(OSError):
        _add(directory, [textfile])


def carry(old: Path, new: Path) -> None:
    """Note in another directory what `old` has on record, which stays: nobody knows which one is read after a kill."""
    with suppress(OSError):
        if textfiles := _read(old):
            _add(new, textfiles)


def remove_left(directory: Path, current: str = "") -> None:
    """Remove the files of earlier daemons, unless this one writes the same (`current`).

    Only a file that begins as ours do: another may have taken the name since. One that cannot be removed, such as in a
    directory that the sandbox no longer lets the daemon write, stays in the record.
    """
    with suppress(OSError):
        recorded = _read(directory)
        left = [path for path in recorded if path == current or not _removed(Path(path))]
        if left != recorded:
            _write(directory, left)


def _removed(textfile: Path) -> bool:
    """Remove the file. True if no file of ours is there now."""
    try:
        if stat.S_ISREG(textfile.stat().st_mode):  # is_file() also denies what cannot be looked at
            with textfile.open("rb") as file:
                ours = file.read(len(_OURS)) == _OURS
            if ours:
                textfile.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True


def _read(directory: Path) -> list[str]:
    """The recorded paths; none if there is no record. Raises OSError."""
    try:
        content = (directory / RECORD).read_bytes()
    except FileNotFoundError:
        return []
    return [os.fsdecode(path) for path in content.split(b"\0") if path]


def _add(directory: Path, textfiles: Sequence[str]) -> None:
    """Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)  # the history and the budget come later
    _write(directory, list(dict.fromkeys((*_read(directory), *textfiles))))


def _write(directory: Path, textfiles: Sequence[str]) -> None:
    """Replace the record, or remove it if no path is left. Raises OSError."""
    if textfiles:
        write_whole(directory / RECORD, b"\0".join(map(os.fsencode, textfiles)))
    else:
        (directory / RECORD).unlink(missing_ok=True)
