"""Child processes that a runtime leaves to this process: exit statuses, orphans, zombies.

`run --detach` leaves the container's first process behind. As this process asked to be the subreaper of its descendants
(PR_SET_CHILD_SUBREAPER, prctl(2)), it becomes the parent, and the kernel keeps pid and exit status until they are
fetched here (process/child.py). asyncio's child watchers wait only for the pids that they started, so they never take
these.
"""

import asyncio
import ctypes
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kickwatch.node.roots import HOST
from kickwatch.process.cancellation import run_shielded, timeout
from kickwatch.process.child import POLL_S, exit_status, reap_if_exited

EXIT_TIMEOUT_S = 1.0
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_REAP_TIMEOUT_S = 5.0
_MAX_GENERATIONS = 5


def set_subreaper(on: bool = True) -> bool:
    """Set whether orphaned descendants become this process's children; returns the setting before."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on), 0, 0, 0)
    return bool(before.value)


@dataclass(frozen=True)
class StartedContainer:
    """A container that this process started: its first process, and the task that fetches its exit status."""

    pid: int
    exit: "asyncio.Task[int]"

    @classmethod
    def watch(cls, pid: int) -> "StartedContainer":
        """Start to wait for the exit of `pid`, which is our child or becomes it."""
        return cls(pid, asyncio.create_task(exit_status(pid)))

    async def wait(self, timeout_s: float) -> int | None:
        """Its exit status; None if it still runs after `timeout_s`. Raises ChildProcessError if it is not our child."""
        try:
            # asyncio.wait_for() of Python 3.11 loses a cancellation that arrives together with the exit.
            async with timeout(timeout_s):
                return await asyncio.shield(self.exit)
        except TimeoutError:
            return None

    async def kill_and_reap(self) -> bool:
        """Kill the first process, which ends all others of its pid namespace; True once it is reaped."""
        if not self.exit.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # our child, not reaped: no other process can have its pid
        with suppress(TimeoutError, ChildProcessError):
            await run_shielded(self._shielded_exit(), _REAP_TIMEOUT_S)
            return True
        self.exit.cancel()
        return False

    async def _shielded_exit(self) -> int:
        return await asyncio.shield(self.exit)


def reap_killed(pid: int, proc: Path = HOST.proc) -> None:
    """Wait until a killed process is gone, and reap it if it is or becomes our child. Blocks for a second at most.

    It leaves its cgroup a moment before it can be reaped, and becomes our child when the process that started it exits.
    """
    for _ in range(int(EXIT_TIMEOUT_S / POLL_S)):
        with suppress(ChildProcessError):
            if reap_if_exited(pid) is not None:
                return
        if not (proc / str(pid)).exists():
            return
        time.sleep(POLL_S)


def reap_one_of_group(group: int) -> bool:
    """Reap one exited process of a process group; False if none of the group is our child any more."""
    try:
        os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def kill_workers_on(bundle: Path, proc: Path = HOST.proc) -> None:
    """Kill and reap descendants that still work on a bundle after its runtime was killed. Blocks for some seconds.

    crun answers `run --detach` from a child with its own session and process group. That child would still make the
    container once it gets the kernel lock that it waits for.
    """
    for _ in range(_MAX_GENERATIONS):
        found = [pid for pid in children(proc) if os.fsencode(bundle) in _command_line(pid, proc)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # our child, not reaped: no other process can have its pid
            reap_killed(pid, proc)
        if not found:
            return


def children(proc: Path = HOST.proc) -> list[int]:
    """Children of this process, including adopted ones and zombies."""
    found: list[int] = []
    for file in (proc / "self/task").glob("*/children"):  # CONFIG_PROC_CHILDREN, which every distribution has
        with suppress(OSError):
            found += map(int, file.read_text(encoding="ascii").split())
    return found


def _command_line(pid: int, proc: Path) -> bytes:
    try:
        return (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def session_of_zombie(pid: int, proc: Path) -> int | None:
    """The session of a process that has exited and is not reaped (proc_pid_stat(5)); None for any other process."""
    try:
        state, _, _, session = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return None
    return int(session) if state == "Z" else None
