"""Our directory in /run: systemd-tmpfiles makes it where kickwatch is installed, else a kickwatch that needs it does.

The installed one is for the drain file as well, which may be created while no kickwatch runs, so it stays.
"""

from contextlib import suppress
from pathlib import Path

_MODE = 0o755  # any user may read status.json
_made: set[Path] = set()  # by this process


def make_run_directory(directory: Path) -> None:
    """Make it, with the same mode whatever the umask is, unless it exists. Raises OSError."""
    try:
        directory.mkdir(mode=_MODE, parents=True)
    except FileExistsError:
        return
    _made.add(directory)
    directory.chmod(_MODE)


def remove_run_directory(directory: Path) -> None:
    """Remove it if this process made it, and nothing is in it."""
    if directory in _made:
        with suppress(OSError):
            directory.rmdir()
            _made.discard(directory)
