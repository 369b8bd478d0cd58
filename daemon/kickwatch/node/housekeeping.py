"""Keeps our own threads, and the programs that they start, off isolated CPUs."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kickwatch.node.roots import HOST


def leave_isolated_cpus(isolated: Iterable[int], proc: Path = HOST.proc) -> tuple[int, ...]:
    """Run on the other CPUs from now on, in every thread and in every program that is started later.

    `isolcpus=` and cpuset partitions keep us off anyway; `nohz_full=` and CPUs that the configuration lists do not.
    Returns the CPUs that remain. Where all allowed CPUs are isolated, nothing changes: we must run somewhere.
    """
    allowed = os.sched_getaffinity(0)
    others = allowed.difference(isolated)
    if not others or others == allowed:
        return tuple(sorted(allowed))
    for thread in _threads(proc):
        with suppress(OSError):  # it has ended, or its cpuset allows none of them
            os.sched_setaffinity(thread, others)
    return tuple(sorted(others))


def _threads(proc: Path) -> list[int]:
    """All of this process; 0, which is the calling one, if they cannot be listed."""
    try:
        return [int(name.name) for name in (proc / "self" / "task").iterdir()]
    except OSError:
        return [0]
