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
    """A container that waits (or, with a user's image, runs): its first process and its memcg."""

    memcg: Path
    pidfd: int
    own_program: bool

    def kmem_bytes(self) -> int | None:
        """Kernel memory charged to the container now; None when the kernel does not say."""
        return kmem_usage_bytes(self.memcg)

    def release(self) -> None:
        """Let our program go on; one that has ended meanwhile is no error. A user's program is never signalled."""
        try:
            if self.own_program:
                signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)
        except ProcessLookupError:
            return
        finally:
            os.close(self.pidfd)


@dataclass(frozen=True)
class Barrier:
    """Finds containers at their barrier. With `own_program` false (a user's image) there is none to wait for."""

    cgroups: Cgroups
    parent: Path
    own_program: bool = True
    deadline_s: float = 20.0
    proc: Path = Path("/proc")

    async def reached(self, container_id: str, inspect_pid: Callable[[str], Awaitable[int]]) -> Place | None:
        """Wait until the program is at its barrier; None when it ended before, EngineError at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.deadline_s
        inspected: int | None = None
        while loop.time() < deadline:
            look = await asyncio.to_thread(self._look, container_id, inspected)
            if (
                look is _Look.NO_CGROUP and inspected is None
            ):  # an engine that names its cgroups otherwise: ask it, once
                inspected = await inspect_pid(container_id)
            elif isinstance(look, Place):
                return look
            elif look is not _Look.NOT_YET:
                return None
            else:
                await asyncio.sleep(_POLL_S)
        raise EngineError(
            f"container {container_id[:12]} did not reach its barrier within {self.deadline_s:.0f} s",
            "is the node short of CPU or memory?",
        )

    def _look(self, container_id: str, inspected: int | None) -> "Place | _Look":
        """One look, in a thread: files of proc and cgroups can block."""
        pids = self._pids_in_cgroup(container_id)
        if pids is None:
            if inspected is None:
                return _Look.NO_CGROUP
            pids = [inspected] if self._comm(inspected) else []
        for pid in pids:
            if not self.own_program or self._comm(pid) == BARRIER_COMM:
                return self._place(pid) or _Look.ENDED
        return _Look.NOT_YET if pids else _Look.ENDED

    def _pids_in_cgroup(self, container_id: str) -> list[int] | None:
        """Host pids of the container, from the cgroup that bears its id: this spares a call to the engine."""
        for name in (container_id, f"docker-{container_id}.scope"):
            try:
                text = (self.parent / name / "cgroup.procs").read_text(encoding="ascii")
            except OSError:
                continue
            return sorted(map(int, text.split()))
        return None

    def _comm(self, pid: int) -> str:
        try:
            return (self.proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _place(self, pid: int) -> Place | None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            return Place(self.cgroups.memcg_dir_of(pid), pidfd, self.own_program)
        except CgroupError:
            os.close(pidfd)
            return None
