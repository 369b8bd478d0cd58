"""runc or crun as child processes: each call bounded, its whole process group killed at the deadline.

`run --detach` leaves the container's first process behind. This process is then its parent, since it asked to be the
subreaper of its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)), so the kernel keeps the number and the exit status
until they are fetched here. asyncio's child watchers wait for the children they started, each by its number, and never
see these.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kickwatch.shielded import finish
from kickwatch.workload.barrier import BARRIER_COMM
from kickwatch.workload.oci_bundle import PROGRAM

NAMES = ("runc", "crun")
PROGRAM_COMMS = (Path(PROGRAM).name, BARRIER_COMM)
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # a user's PATH often lacks these, and runc lives there
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_POLL_S = 0.005
_GROUP_ENDS_S = 1.0
_ORPHANED_S = 2.0


class _LogLine(msgspec.Struct):
    """A line of `--log-format json`."""

    level: str = ""
    msg: str = ""


def find_runtime(wanted: str = "") -> Path | None:
    """The program to drive: `wanted` (a name or an absolute path), else runc, else crun; None where there is none."""
    for name in (wanted,) if wanted else NAMES:
        if found := shutil.which(name, path=search_path()):
            return Path(found)
    return None


def search_path() -> str:
    """PATH, and where runc lives. All of our environment that a runtime gets.

    With NOTIFY_SOCKET in it a runtime waits until the container says to systemd that it is ready, and LISTEN_FDS makes
    it pass descriptors on.
    """
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))


@dataclass(frozen=True)
class Runtime:
    """One runtime program with its own `--root`, `state`: what others run with the same program is out of its sight."""

    program: Path
    state: Path
    timeout_s: float
    under_way: set[int] = field(default_factory=set, compare=False)

    async def version(self) -> str:
        """What `--version` prints. Raises TimeoutError and OSError."""
        async with self._child(PIPE, "--version") as process:
            out, _ = await process.communicate()
        return out.decode(errors="replace")

    async def call(self, log: Path, *arguments: str | Path) -> str:
        """Run one command to its end; returns what it complained of, nothing where it succeeded.

        Raises TimeoutError after the deadline and OSError when it cannot be started; whatever it had begun is
        interrupted then, and on a cancellation.
        """
        # Its standard streams become the container's: what it has to say goes into the log.
        command = ("--root", self.state, "--log", log, "--log-format", "json", *arguments)
        async with self._child(DEVNULL, *command) as process:
            status = await process.wait()
        return "" if status == 0 else await asyncio.to_thread(complaint, log, status)

    def reap_strays(self, kept: Set[int], proc: Path = Path("/proc")) -> None:
        """Reap what a runtime left to us: crun's go-between, containers whose start had no answer. Not those `kept`.

        They are told by their names: nothing else that this process starts bears one of them.
        """
        with suppress(ChildProcessError):
            while (told := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                comm = read_comm(told.si_pid, proc)
                mine = comm in {*NAMES, *PROGRAM_COMMS} or comm.startswith("runc:[")
                if not mine or told.si_pid in kept or told.si_pid in self.under_way:
                    return  # who started it looks after it at once
                os.waitid(os.P_PID, told.si_pid, os.WEXITED | os.WNOHANG)

    @asynccontextmanager
    async def _child(self, stdout: int, *arguments: str | Path) -> AsyncIterator[Process]:
        """The runtime as leader of a session; whatever goes wrong, a deadline or a cancellation, ends all of it."""
        options = {"stdin": DEVNULL, "stdout": stdout, "stderr": DEVNULL, "env": {"PATH": search_path()}}
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(self.program, *arguments, start_new_session=True, **options)  # type: ignore[arg-type]
        )
        try:
            process = await asyncio.shield(starting)  # cancelled halfway, asyncio would kill this one process alone
            self.under_way.add(process.pid)
            async with asyncio.timeout(self.timeout_s):
                yield process
        except BaseException:
            await finish(_end_group(starting))
            raise
        finally:
            if not starting.cancelled() and starting.exception() is None:
                self.under_way.discard(starting.result().pid)


def complaint(log: Path, status: int) -> str:
    """The last error in a runtime's log."""
    said = ""
    with suppress(OSError):
        for line in log.read_bytes().splitlines():
            with suppress(msgspec.MsgspecError):
                entry = msgspec.json.decode(line, type=_LogLine)
                said = entry.msg if entry.level in {"error", "fatal"} else said
    return said or f"exit status {status}"


async def _end_group(starting: Awaitable[Process]) -> None:
    """Kill a runtime and what it started in its session; its orphans are ours to reap."""
    try:
        process = await starting
    except OSError:
        return  # never started
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    for _ in range(int(_GROUP_ENDS_S / _POLL_S)):
        if not _reap_group(process.pid):
            return
        await asyncio.sleep(_POLL_S)


def _reap_group(group: int) -> bool:
    """Reap one ended process of a group; False where none of it is our child any more."""
    try:
        os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def be_subreaper(on: bool = True) -> bool:
    """Whether orphaned descendants become this process's children from now on; returns how it was before."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on), 0, 0, 0)
    return bool(before.value)


async def exit_status(pid: int) -> int:
    """Wait for our child `pid` and reap it: its exit status, or 128 + the signal that ended it.

    Its number cannot pass to another process before it was reaped here. Raises ChildProcessError if it is not ours.
    """
    await _until_ours(pid)
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # ENOSYS before "pid: add pidfd_open()", 5.3
        while (status := reaped(pid)) is None:  # noqa: ASYNC110 -- there is nothing to wait for
            await asyncio.sleep(_POLL_S)
        return status
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        while (status := reaped(pid)) is None:
            await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return status


async def _until_ours(pid: int) -> None:
    """Wait until `pid` is our child: crun answers a moment before the process ends that started the container."""
    for left in reversed(range(int(_ORPHANED_S / _POLL_S))):
        if _is_child(pid):
            return
        if left:
            await asyncio.sleep(_POLL_S)
    raise ChildProcessError(f"process {pid} is not our child")


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reaped(pid: int) -> int | None:
    """The exit status of our child `pid` if it has ended: it is gone then; None while it runs."""
    told = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    if told is None:
        return None
    return told.si_status if told.si_code == os.CLD_EXITED else 128 + told.si_status


def reap_dead(pid: int, proc: Path = Path("/proc")) -> None:
    """See a process that was killed to its end, and reap it if it is our child, or becomes it meanwhile. Blocks.

    It leaves its cgroup a moment before it can be reaped, and becomes ours when the process that started it ends.
    """
    for _ in range(int(_GROUP_ENDS_S / _POLL_S)):
        with suppress(ChildProcessError):
            if reaped(pid) is not None:
                return
        if not (proc / str(pid)).exists():
            return
        time.sleep(_POLL_S)


def read_comm(pid: int, proc: Path) -> str:
    """The name of a process, ended or not; empty when there is none."""
    try:
        return (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
