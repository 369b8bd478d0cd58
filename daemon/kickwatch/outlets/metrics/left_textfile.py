"""A textfile that a killed daemon left: its figures would look current for ever, and stand for a daemon that is gone.

Where the file is, is recorded in the directory of the state, because the next daemon may be configured with another
path, or none. A removal (`deploy/install`, Debian package, Ansible role) reads the same record. Loads nothing of
Prometheus.
"""

import os
from contextlib import suppress
from pathlib import Path

from kickwatch.process.atomic_file import write_whole

RECORD = "textfile"  # in state.directory: the path of the textfile, and nothing else
_OURS = b"# HELP kickwatch_"


def record(directory: Path, textfile: str) -> None:
    """Note that the daemon writes this file. A record that cannot be written is left out."""
    with suppress(OSError):
        write_whole(directory / RECORD, os.fsencode(textfile))


def forget(directory: Path) -> None:
    """The daemon has removed its file."""
    with suppress(OSError):
        (directory / RECORD).unlink(missing_ok=True)


def remove_left(directory: Path, current: str) -> None:
    """Remove the file of an earlier daemon, unless this one writes the same (`current`).

    Only a file that begins as ours do: another may have taken the name since.
    """
    with suppress(OSError):
        left = Path(os.fsdecode((directory / RECORD).read_bytes()))
        if str(left) == current:
            return
        forget(directory)
        with left.open("rb") as file:
            ours = file.read(len(_OURS)) == _OURS
        if ours:
            left.unlink()
