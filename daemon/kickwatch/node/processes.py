"""Which process a pid names: a pid is used again, its start time is not, and a pidfd stays with its process."""

import os
from errno import EINVAL, ENOSYS
from pathlib import Path

from kickwatch.node.roots import HOST


def start_ticks(pid: int | str, proc: Path = HOST.proc) -> int | None:
    """When a process started, in clock ticks since boot; the same in every pid namespace. None if there is none.

    starttime, field 22 of proc_pid_stat(5); the name before it may contain anything.
    """
    try:
        fields = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])


def open_pidfd(pid: int) -> int | None:
    """A file descriptor of process `pid`; None before "pid: add pidfd_open()" (5.3). Raises ProcessLookupError.

    Of a process that is gone while its pid is still that of a session older kernels, 5.10 among them, say EINVAL.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == ENOSYS:
            return None
        if error.errno == EINVAL:
            raise ProcessLookupError(error.errno, error.strerror) from error
        raise
