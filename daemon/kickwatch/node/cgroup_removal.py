"""Removes cgroups of ours, and on request ends the processes in them.

All calls are short and synchronous: from the event loop use `asyncio.to_thread`. Source: cgroups(7).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EBUSY
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import own_name, read_text
from kickwatch.node.processes import open_pidfd

_RMDIR_ATTEMPTS = 20
_RMDIR_PAUSE_S = 0.05


def nobody(_cgroup: Path) -> bool:
    """Of no cgroup the processes may be killed."""
    return False


def everybody(_cgroup: Path) -> bool:
    """Of every cgroup the processes may be killed."""
    return True


def remove_tree(
    directory: Path, *, kill: Callable[[Path], bool] = nobody, attempts: int = _RMDIR_ATTEMPTS, top: bool = True
) -> tuple[Path, ...]:
    """Remove one of our cgroups with all below it, deepest first; returns the directories that remain.

    Without `top` only what is below it.

    On EBUSY it tries again, each directory at most `attempts` times, with pauses of 50 ms for the whole tree: a process
    leaves its cgroup shortly after its exit. So one directory that stays, such as that of another's container, takes no
    time from the others. A cgroup that still contains processes remains; where `kill` permits it, they are ended.
    Raises CgroupError if the name is not one of ours.
    """
    own_name(directory.name)
    while True:
        tried = (path for path in _deepest_first(directory) if top or path != directory)
        remaining = tuple(path for path in tried if not _rmdir(path, kill=kill))
        attempts -= 1
        if not remaining or attempts <= 0:
            return remaining
        time.sleep(_RMDIR_PAUSE_S)


def _rmdir(path: Path, *, kill: Callable[[Path], bool]) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != EBUSY:
            raise CgroupError(f"{path} cannot be removed ({error.strerror})", "remove it with rmdir") from error
        if kill(path):
            _kill_members(path)
        return False
    return True


def _kill_members(cgroup: Path) -> None:
    """Send SIGKILL through a pidfd, and check membership after opening it: a reused process id cannot be hit."""
    procs = cgroup / "cgroup.procs"
    for pid in (read_text(procs) or "").split():
        if int(pid) in {0, os.getpid()}:
            continue
        with suppress(ProcessLookupError):
            pidfd = open_pidfd(int(pid))
            if pidfd is None:
                if pid in (read_text(procs) or "").split():
                    os.kill(int(pid), signal.SIGKILL)
                continue
            try:
                if pid in (read_text(procs) or "").split():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _deepest_first(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            children = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in sorted(children):
        yield from _deepest_first(child)
    yield directory
