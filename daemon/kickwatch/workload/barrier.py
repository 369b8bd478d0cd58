"""The barrier inside our own program: where it is reached, what its memcg says, and how it is released.

The program renames itself to `kw-barrier` when it has allocated everything and waits for SIGUSR1. Root on the host
sees the name in /proc/PID/comm and signals through a pidfd, which cannot hit a later process of the same number. No
mount, no socket and no shell in the container, and no call to the engine: those would cost IPIs of their own.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from errno import ENOSYS
from pathlib import Path

from kickwatch.errors import CgroupError, EngineError
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes

BARRIER_COMM = "kw-barrier"
_POLL_S = 0.002


class _Look(Enum):
    NO_CGROUP = auto()
    NOT_YET = auto()
    ENDED = auto()


@dataclass(frozen=True)
class Place:
    """A container that waits (or, with a user's image, runs): its first process and its memcg.

    It holds nothing open, so there is nothing to give back when a trial is cancelled. Its methods block.
    """

    pid: int
    memcg: Path
    cgroups: Cgroups
    own_program: bool = True

    def kmem_bytes(self) -> int | None:
        """Kernel memory charged to the container now; None when the kernel does not say, or it has ended."""
        return kmem_usage_bytes(self.memcg)

    def release(self) -> None:
        """Let our program go on; one that has ended meanwhile is no error. A user's program is never signalled."""
        if not self.own_program:
            return
        try:
            self._signal()
        except ProcessLookupError:
            return
        except OSError as error:
            raise CgroupError(
                f"process {self.pid} in {self.memcg} cannot be released ({error.strerror})", "run as root on the host"
            ) from error

    def _signal(self) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno != ENOSYS:  # "pid: add pidfd_open()", 5.3
                raise
            if self._waits():
                os.kill(self.pid, signal.SIGUSR1)
            return
        try:
            if self._waits():  # asked after the pidfd was opened: it is that process, and no later one
                signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        finally:
            os.close(pidfd)

    def _waits(self) -> bool:
        """True while the process of that number is the one at the barrier, in the same memcg."""
        return read_comm(self.cgroups, self.pid) == BARRIER_COMM and memcg_of(self.cgroups, self.pid) == self.memcg


@dataclass(frozen=True)
class Barrier:
    """Finds containers at their barrier. With `own_program` false (a user's image) there is none to wait for."""

    cgroups: Cgroups
    parent: Path
    own_program: bool = True
    deadline_s: float = 20.0

    async def reached(
        self, container_id: str, inspect_pid: Callable[[str], Awaitable[int]], name: str = ""
    ) -> Place | None:
        """Wait until the program is at its barrier; None when it ended before, EngineError at the deadline.

        `name` is what errors call the container. Raises CgroupError when its processes or its memcg are not in sight.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.deadline_s
        inspected: int | None = None
        while loop.time() < deadline:
            look = await asyncio.to_thread(self._look, container_id, inspected)
            if isinstance(look, Place):
                return look
            if look is _Look.ENDED:
                return None
            if look is _Look.NO_CGROUP:  # an engine that names its cgroups otherwise: ask it, once
                inspected = await inspect_pid(container_id)
            else:
                await asyncio.sleep(_POLL_S)
        raise EngineError(
            f"container {name or container_id[:12]} did not reach its barrier within {self.deadline_s:.0f} s",
            "is the node short of CPU or memory?",
        )

    def _look(self, container_id: str, inspected: int | None) -> "Place | _Look":
        """One look, in a thread: files of proc and cgroups can block."""
        pids = self._pids_in_cgroup(container_id)
        if pids is None:
            if inspected is None:
                return _Look.NO_CGROUP
            pids = [inspected] if read_comm(self.cgroups, inspected) else []
        for pid in pids:
            if not self.own_program or read_comm(self.cgroups, pid) == BARRIER_COMM:
                return self._place(pid, container_id) or _Look.ENDED
        return _Look.NOT_YET if pids else _Look.ENDED

    def _pids_in_cgroup(self, container_id: str) -> list[int] | None:
        """Host pids of the container, from the cgroup that bears its id: this spares a call to the engine."""
        for name in (container_id, f"docker-{container_id}.scope"):
            path = self.parent / name / "cgroup.procs"
            try:
                pids = sorted(map(int, path.read_text(encoding="ascii").split()))
            except OSError:
                continue
            if 0 in pids:  # how the kernel lists members that have no number in the reader's pid namespace
                raise CgroupError(
                    f"{path} lists processes that are not visible here", "run in the host's pid namespace"
                )
            return pids
        return None

    def _place(self, pid: int, container_id: str) -> Place | None:
        """Where process `pid` is; None when it has ended.

        The memcg must bear the container's id, since the knobs are written into it: an exiting process shows the root
        in /proc/PID/cgroup of v1 hierarchies, and a number inspected may be another process's by now.
        """
        memcg = memcg_of(self.cgroups, pid)
        if memcg is None or memcg == self.cgroups.memory_root:
            return None
        if not any(container_id in part for part in memcg.parts):
            raise CgroupError(
                f"process {pid} of container {container_id[:12]} is in {memcg}, which does not bear its id",
                "does the engine honour cgroup parents?",
            )
        return Place(pid, memcg, self.cgroups, self.own_program)


def read_comm(cgroups: Cgroups, pid: int) -> str:
    """The name of process `pid`, empty when there is none."""
    try:
        return (cgroups.proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def memcg_of(cgroups: Cgroups, pid: int) -> Path | None:
    """The memcg of process `pid`, None when it has ended. Raises CgroupError when the memcg is not in sight."""
    try:
        return cgroups.memcg_dir_of(pid)
    except CgroupError as error:
        if isinstance(error.__cause__, FileNotFoundError | ProcessLookupError):
            return None
        raise
