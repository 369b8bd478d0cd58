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

from kickwatch.process.cancellation import run_shielded, timeout

NAMES = ("runc", "crun")
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # a user's PATH often lacks these, and runc lives there
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_POLL_S = 0.005
_GROUP_ENDS_S = 1.0
_ORPHANED_S = 2.0
_GENERATIONS = 5


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

        They are told by their session, which is not ours: what this process starts itself stays in its own, but for
        the runtimes. Not by a name, which a runtime may change as it likes.
        """
        ours = os.getsid(0)
        for pid in set(children(proc)) - kept - self.under_way:
            if _ended_in_session(pid, proc) not in {None, ours}:
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

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
            async with timeout(self.timeout_s):
                yield process
        except BaseException:
            await run_shielded(_end_group(starting))
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
    """Kill a runtime and what it started in its group; its orphans are ours to reap. Bounded."""
    try:
        process = await starting
    except OSError:
        return  # never started
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):  # one that sleeps uninterruptibly in the kernel, or is traced, ends when it may
        async with timeout(_GROUP_ENDS_S):
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
        return await _polled(pid)
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return await _polled(pid)


async def _polled(pid: int) -> int:
    """A process has ended for its pidfd while a tracer still keeps its status from us: so it is asked for again."""
    while (status := reaped(pid)) is None:  # noqa: ASYNC110 -- nothing tells
        await asyncio.sleep(_POLL_S)
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


def end_descendants_of(bundle: Path, proc: Path = Path("/proc")) -> None:
    """Kill and reap what still works on a bundle though its runtime was killed. Blocks for some seconds at most.

    crun answers to `run --detach` from a child that has left its session, and so its group: it would make the container
    after all, when the kernel lock comes free that it waits for.
    """
    for _ in range(_GENERATIONS):
        found = [pid for pid in children(proc) if os.fsencode(bundle) in _command_line(pid, proc)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # our child, not reaped: no other process can have its number
            reap_dead(pid, proc)
        if not found:
            return


def children(proc: Path = Path("/proc")) -> list[int]:
    """Children of this process, adopted ones too, ended ones too."""
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


def _ended_in_session(pid: int, proc: Path) -> int | None:
    """The session of a process that has ended and is not reaped (proc_pid_stat(5)); None for any other."""
    try:
        state, _, _, session = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return None
    return int(session) if state == "Z" else None
