"""The first process of a container: its memory cgroup, what that charges, and its release from the barrier.

It is known by a pid, which the kernel gives to another process after its end: whatever is done to it goes through a
pidfd, and only while it is at its barrier in the container's memcg.
"""

import os
import signal
from dataclasses import dataclass
from errno import EMFILE, ENFILE
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes, read_text
from kickwatch.node.diagnosis import exhausted
from kickwatch.node.processes import open_pidfd

BARRIER_COMM = "kw-barrier"


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
        pidfd = open_pidfd(self.pid)
        if pidfd is None:
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


def read_comm(cgroups: Cgroups, pid: int) -> str:
    """The name of process `pid`; empty if there is none. Raises CgroupError if descriptors are used up."""
    file = cgroups.proc / str(pid) / "comm"
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        refuse_if_exhausted(error, file)
        return ""


def refuse_if_exhausted(error: OSError, file: Path) -> None:
    """What cannot be read for want of descriptors is not absent. Raises CgroupError then."""
    if error.errno in {EMFILE, ENFILE} and (cause := exhausted(error.errno)):
        raise CgroupError(f"{file} cannot be read: {cause.what}", cause.remedy) from error


def memcg_of(cgroups: Cgroups, pid: int) -> Path | None:
    """The memcg of process `pid`; None if it has exited. Raises CgroupError if the memcg is not visible."""
    try:
        return cgroups.memcg_dir_of(pid)
    except CgroupError as error:
        if isinstance(error.__cause__, FileNotFoundError | ProcessLookupError):
            return None
        raise
