"""The barrier inside our program: find the container that waits there, read its memcg, and release it.

When the program has allocated everything, it drops its capabilities, renames itself to `kw-barrier` and waits for
SIGUSR1. Root on the host reads that name in /proc/PID/comm and signals through a pidfd, which cannot hit a later
process with the same pid. This needs no mount, socket or shell in the container and no call to the engine, all of which
would cause IPIs.

Where /proc is mounted with hidepid=4, or another hidepid and a `gid` that the daemon is not in, the daemon, which has
dropped CAP_SYS_PTRACE, sees no process of a container until that has dropped its capabilities; never one of a rootless
engine. With userns-remap it does see them: root owns their user namespace, and has every capability in it
(user_namespaces(7)).
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from errno import ENOSYS
from functools import cached_property
from pathlib import Path

from kickwatch.errors import CgroupError, EngineError, NoHostProcessError
from kickwatch.node.causes import hidden_processes
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes, read_text
from kickwatch.node.proc_mount import ProcMount, hidden, read_proc_mount

BARRIER_COMM = "kw-barrier"
PROGRAM_COMM = "workload"  # before the barrier
_POLL_S = 0.002
_ASK_AGAIN_S = 0.1
# The first process of a container is the runtime's until it executes the program: runc, youki, crun.
_RUNTIMES_OWN = (":[1:CHILD]", ":[2:INIT]", "crun")
# How engines name a container's cgroup: Docker and containerd with the systemd driver; CRI-O with it and without.
_ENGINES_NAMES = ("docker-{}.scope", "cri-containerd-{}.scope", "crio-{}.scope", "crio-{}")


class _NotThere(Enum):
    """Why a container is not at its barrier."""

    NO_CGROUP = auto()
    NOT_YET = auto()
    HIDDEN = auto()  # perhaps: /proc does not show its processes
    NO_PID = auto()  # its processes have no pid here: they are another pid namespace's, or are just being reaped
    ELSEWHERE = auto()  # other programs run in its place: a sandbox's, or a virtual machine's
    EXITED = auto()


# How long a cause must last to be the last word: longer than the few milliseconds of a start that looks like it.
_TIMEOUTS_S = {_NotThere.HIDDEN: 3.0, _NotThere.ELSEWHERE: 5.0, _NotThere.NO_PID: 3.0}


@dataclass(frozen=True)
class ContainerProcess:
    """The first process of a container that waits at its barrier (a user's image: that runs), and its memcg.

    It holds no file descriptor, so a cancelled trial has nothing to release. Its methods block.
    """

    pid: int
    memcg: Path
    cgroups: Cgroups
    own_program: bool = True

    def kmem_bytes(self) -> int | None:
        """Kernel memory charged to the container now; None if the kernel does not report it or the container exited.

        A memcg without a process may have been uncharged already, so its zero is no measurement.
        """
        usage = kmem_usage_bytes(self.memcg)
        return usage if usage or not self.ended() else None

    def ended(self) -> bool:
        """True if the process has left the memcg, as an exiting one does. Asks the memcg, since /proc may hide it."""
        return str(self.pid) not in (read_text(self.memcg / "cgroup.procs") or "").split()

    def release(self) -> None:
        """Let our program continue; one that has exited is no error. A user's program is never signalled."""
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
            if self._at_barrier():
                os.kill(self.pid, signal.SIGUSR1)
            return
        try:
            if self._at_barrier():  # checked after the pidfd was opened, so the pidfd is that process
                signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        finally:
            os.close(pidfd)

    def _at_barrier(self) -> bool:
        """True if the process with this pid is at the barrier, in the same memcg."""
        return read_comm(self.cgroups, self.pid) == BARRIER_COMM and memcg_of(self.cgroups, self.pid) == self.memcg


@dataclass(frozen=True)
class Barrier:
    """Finds containers at their barrier. A user's image (`own_program` false) has no barrier to wait for."""

    cgroups: Cgroups
    parent: Path
    own_program: bool = True
    timeout_s: float = 20.0
    runtime: str = "the runtime"  # in error messages
    runtimes: tuple[str, ...] = ()

    async def wait_for(
        self, container_id: str, inspect_pid: Callable[[str], Awaitable[int]], name: str = ""
    ) -> ContainerProcess | None:
        """Wait until the container's program is at its barrier; None if it exited before.

        `name` is the container's name in error messages. Raises EngineError after `timeout_s`, CgroupError if the
        container's processes or its memcg are not visible, NoHostProcessError if only other programs run in its place.
        """
        loop = asyncio.get_running_loop()
        began = since = loop.time()  # `since`: how long it has not been there for the same cause
        inspected_pid: int | None = None
        cause = _NotThere.NOT_YET
        while (now := loop.time()) - began < self.timeout_s and now - since < _TIMEOUTS_S.get(cause, self.timeout_s):
            found = await asyncio.to_thread(self._find, container_id, inspected_pid)
            if isinstance(found, ContainerProcess):
                return found
            pause_s = _POLL_S
            if found is _NotThere.EXITED:
                if not self.own_program or not await inspect_pid(container_id):
                    return None
                found, pause_s = _NotThere.ELSEWHERE, _ASK_AGAIN_S  # it runs outside its memcg, or exits just now
            if found is not cause:
                cause, since = found, loop.time()
            if found is _NotThere.NO_CGROUP:  # the engine names its cgroups differently: ask it, once
                inspected_pid = await inspect_pid(container_id)
            else:
                await asyncio.sleep(pause_s)
        raise self._not_reached(name or container_id[:12], cause)

    def _not_reached(self, name: str, cause: "_NotThere") -> EngineError | CgroupError:
        if cause is _NotThere.NO_PID:
            what = f"the cgroup of container {name} lists processes that are not visible here"
            return CgroupError(what, "run in the host's pid namespace")
        if cause is _NotThere.HIDDEN:
            mount = hidden_processes(self._mount)
            return EngineError(f"the processes of container {name} are hidden: {mount.what}", mount.remedy)
        if cause is _NotThere.ELSEWHERE:
            what = f"{self.runtime} runs the program of container {name} in a sandbox or a virtual machine: it is no"
            has = f" ({', '.join(self.runtimes)})" if self.runtimes else ""
            remedy = f"set engine.runtime to one whose containers are the node's processes, such as runc{has}"
            return NoHostProcessError(f"{what} process of this node, and its kernel is not the node's", remedy)
        what = f"container {name} did not reach its barrier within {self.timeout_s:.0f} s"
        return EngineError(what, "is the node short of CPU or memory?")

    def _find(self, container_id: str, inspected_pid: int | None) -> "ContainerProcess | _NotThere":
        """Check once. Runs in a thread, because files of proc and cgroups can block."""
        cgroup = self._own_cgroup(container_id)
        if cgroup is None and inspected_pid is None:
            return _NotThere.NO_CGROUP
        directory, pids = cgroup or (None, [pid for pid in (inspected_pid,) if pid and self._runs(pid)])
        if pids and not any(pids):
            return _NotThere.NO_PID
        pids = [pid for pid in pids if pid]
        for pid in pids:
            if not self.own_program or read_comm(self.cgroups, pid) == BARRIER_COMM:
                return self._process(pid, container_id, directory)
        if pids and all(map(self._hidden, pids)):
            return _NotThere.HIDDEN
        if pids and self._others(pids):
            return _NotThere.ELSEWHERE
        return _NotThere.NOT_YET if pids else _NotThere.EXITED

    def _others(self, pids: list[int]) -> bool:
        """True if each process has a name, which is not our program's and not that of a runtime that starts it."""
        names = [read_comm(self.cgroups, pid) for pid in pids]
        return all(name and name != PROGRAM_COMM and not name.endswith(_RUNTIMES_OWN) for name in names)

    def _runs(self, pid: int) -> bool:
        return bool(read_comm(self.cgroups, pid)) or self._hidden(pid)

    def _hidden(self, pid: int) -> bool:
        return hidden(self.cgroups.proc, pid, self._mount)

    @cached_property
    def _mount(self) -> ProcMount:
        return read_proc_mount(self.cgroups.proc)

    def _own_cgroup(self, container_id: str) -> tuple[Path, list[int]] | None:
        """The cgroup that is named after the container's id, and the host pids in it, without a call to the engine.

        None if there is no such cgroup. The kernel lists a member without a pid in the reader's pid namespace as 0, and
        so it does with one that is reaped while it lists (task_pid_vnr() after release_task()).
        """
        for name in (container_id, *(name.format(container_id) for name in _ENGINES_NAMES)):
            path = self.parent / name / "cgroup.procs"
            try:
                pids = sorted(map(int, path.read_text(encoding="ascii").split()))
            except OSError:
                continue
            return path.parent, pids
        return None

    def _process(self, pid: int, container_id: str, directory: Path | None) -> "ContainerProcess | _NotThere":
        """The process `pid` and its memcg. `directory`: the memcg that lists it, if it was found there.

        The memcg's path must contain the container's id, because limits are written into it. An exiting process shows
        the root in /proc/PID/cgroup of v1 hierarchies, and an inspected pid may belong to another process by now.
        """
        if self._hidden(pid):
            found = directory and ContainerProcess(pid, directory, self.cgroups, self.own_program)
            return found or _NotThere.HIDDEN
        memcg = memcg_of(self.cgroups, pid)
        if memcg is None or memcg == self.cgroups.memory_root:
            return _NotThere.EXITED
        if not any(container_id in part for part in memcg.parts):
            raise CgroupError(
                f"process {pid} of container {container_id[:12]} is in {memcg}, which does not contain its id",
                "does the engine honour cgroup parents?",
            )
        return ContainerProcess(pid, memcg, self.cgroups, self.own_program)


def read_comm(cgroups: Cgroups, pid: int) -> str:
    """The name of process `pid`; empty if there is none."""
    try:
        return (cgroups.proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def memcg_of(cgroups: Cgroups, pid: int) -> Path | None:
    """The memcg of process `pid`; None if it has exited. Raises CgroupError if the memcg is not visible."""
    try:
        return cgroups.memcg_dir_of(pid)
    except CgroupError as error:
        if isinstance(error.__cause__, FileNotFoundError | ProcessLookupError):
            return None
        raise
