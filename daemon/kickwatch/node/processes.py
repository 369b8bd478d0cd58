"""Which process a pid names: a pid is used again, its start time is not."""

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
