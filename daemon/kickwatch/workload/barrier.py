"""The barrier inside our program: find the container that waits there, or say why it is not found.

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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from math import inf
from pathlib import Path

from kickwatch.errors import CgroupError, EngineError, NoHostProcessError
from kickwatch.node.causes import hidden_processes
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.proc_mount import ProcMount, hidden, read_proc_mount
from kickwatch.workload.container_process import (
    BARRIER_COMM,
    ContainerProcess,
    memcg_of,
    read_comm,
    refuse_if_exhausted,
)

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
        container's processes or its memcg are not visible, NoHostProcessError if only other programs run in its place:
        these two after some seconds, if that lasts.
        """
        loop = asyncio.get_running_loop()
        began = since = loop.time()  # `since`: how long it has not been there for the same cause
        inspected_pid: int | None = None
        cause = _NotThere.NOT_YET
        while True:
            now = loop.time()  # before the look: the machine may stand still after it
            found = await asyncio.to_thread(self._find, container_id, inspected_pid)
            if isinstance(found, ContainerProcess):
                return found
            pause_s = _POLL_S
            if found is _NotThere.EXITED:
                if not self.own_program or not await inspect_pid(container_id):
                    return None
                found, pause_s = _NotThere.ELSEWHERE, _ASK_AGAIN_S  # it runs outside its memcg, or exits just now
            cause, since = (cause, since) if found is cause else (found, now)
            if last := self._last_word(cause, now - since, now - began):
                raise self._not_reached(name or container_id[:12], last)
            if found is _NotThere.NO_CGROUP:  # the engine names its cgroups differently: ask it, once
                inspected_pid = await inspect_pid(container_id)
            else:
                await asyncio.sleep(pause_s)

    def _last_word(self, cause: _NotThere, lasted_s: float, waited_s: float) -> _NotThere | None:
        """The cause to report if it is time to give up; None if it is not. A moment of a cause is none."""
        limit_s = _TIMEOUTS_S.get(cause, inf)
        if lasted_s >= limit_s:
            return cause
        if waited_s < self.timeout_s:
            return None
        return cause if lasted_s >= min(limit_s, self.timeout_s / 2) else _NotThere.NOT_YET

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
        directory, listed = cgroup or (None, [pid for pid in (inspected_pid,) if pid and self._runs(pid)])
        pids = [pid for pid in listed if pid]
        for pid in pids:
            if self.own_program and read_comm(self.cgroups, pid) != BARRIER_COMM:
                continue
            found = self._process(pid, container_id, directory)
            if self.own_program or found is not _NotThere.EXITED:
                return found
        return _NotThere.NO_PID if listed and not pids else self._why_not(pids)

    def _why_not(self, pids: list[int]) -> _NotThere:
        if not self.own_program or not pids:
            return _NotThere.EXITED
        if all(map(self._hidden, pids)):
            return _NotThere.HIDDEN
        return _NotThere.ELSEWHERE if self._others(pids) else _NotThere.NOT_YET

    def _others(self, pids: list[int]) -> bool:
        """True if some have names, and none is our program's or that of a runtime that starts it."""
        names = [name for name in (read_comm(self.cgroups, pid) for pid in pids) if name]
        return bool(names) and not any(name == PROGRAM_COMM or name.endswith(_RUNTIMES_OWN) for name in names)

    def _runs(self, pid: int) -> bool:
        return bool(read_comm(self.cgroups, pid)) or self._hidden(pid)

    def _hidden(self, pid: int) -> bool:
        return hidden(self.cgroups.proc, pid, self._mount)

    @cached_property
    def _mount(self) -> ProcMount:
        return read_proc_mount(self.cgroups.proc)

    def _own_cgroup(self, container_id: str) -> tuple[Path, list[int]] | None:
        """The cgroup that is named after the container's id, and the host pids in it, without a call to the engine.

        None if there is no such cgroup. cgroup v2 lists a member without a pid in the reader's pid namespace as 0, and
        so it does with one that is reaped while it lists (task_pid_vnr() after release_task()); v1 leaves them out.
        Raises CgroupError if descriptors are used up.
        """
        for name in (container_id, *(name.format(container_id) for name in _ENGINES_NAMES)):
            path = self.parent / name / "cgroup.procs"
            try:
                pids = sorted(map(int, path.read_text(encoding="ascii").split()))
            except OSError as error:
                refuse_if_exhausted(error, path)
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
