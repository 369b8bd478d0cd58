"""runc or crun as a child process: each call has a deadline, at which its whole process group is killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from threading import Lock

import msgspec

from kickwatch.node.roots import HOST
from kickwatch.process.cancellation import run_shielded, timeout
from kickwatch.process.child import POLL_S, exit_status, start_child
from kickwatch.workload.oci_processes import EXIT_TIMEOUT_S, children, reap_one_of_group, session_of_zombie
from kickwatch.workload.oci_support import search_path

_MOST_VERSION_BYTES = 65536


class _LogLine(msgspec.Struct):
    """A line of `--log-format json`."""

    level: str = ""
    msg: str = ""


@dataclass(frozen=True)
class Runtime:
    """One runtime program with its own `--root`, `state`, so that containers of others are not visible to it.

    `running_pids`: the runtime processes of calls in progress.
    """

    program: Path
    state: Path
    timeout_s: float
    running_pids: set[int] = field(default_factory=set, compare=False)
    _starting: Lock = field(default_factory=Lock, compare=False)  # no child is unlisted while strays are reaped

    async def version(self) -> str:
        """The output of `--version`. Raises TimeoutError and OSError."""
        output = os.memfd_create("kickwatch-version")
        try:
            async with self._child(output, "--version") as pid:
                await exit_status(pid)
            text = await asyncio.to_thread(os.pread, output, _MOST_VERSION_BYTES, 0)
        finally:
            os.close(output)
        return text.decode(errors="replace")

    async def call(self, log: Path, *arguments: str | Path) -> str:
        """Run one command to its end; returns its error message, empty if it succeeded.

        Raises TimeoutError after the deadline and OSError if it cannot be started. After the deadline, and on a
        cancellation, the runtime and its process group are killed.
        """
        # The container inherits the runtime's standard streams, so its messages go to the log instead.
        command = ("--root", self.state, "--log", log, "--log-format", "json", *arguments)
        async with self._child(DEVNULL, *command) as pid:
            status = await exit_status(pid)
        return "" if status == 0 else await asyncio.to_thread(last_error, log, status)

    def reap_strays(self, kept: Set[int], proc: Path = HOST.proc) -> None:
        """Reap exited children that a runtime left to us, except `kept`.

        Those are crun's intermediate process and containers whose start was not answered. They are recognised by their
        session, which is not ours: what this process starts stays in our session, except for runtimes. Their names
        would not do, because a runtime may change them.
        """
        our_session = os.getsid(0)
        with self._starting:
            strays = set(children(proc)) - kept - self.running_pids
        for pid in strays:
            if session_of_zombie(pid, proc) not in {None, our_session}:
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    @asynccontextmanager
    async def _child(self, stdout: int, *arguments: str | Path) -> AsyncIterator[int]:
        """The pid of the runtime, leader of a new session. An error, the deadline and a cancellation kill its group."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._start, [self.program, *arguments], stdout))
        try:
            pid = await asyncio.shield(starting)
            async with timeout(self.timeout_s):
                yield pid
        except BaseException:
            await run_shielded(_kill_group(starting))
            raise
        finally:
            if not starting.cancelled() and starting.exception() is None:
                self.running_pids.discard(starting.result())

    def _start(self, command: Sequence[str | Path], stdout: int) -> int:
        """Start a program as leader of a new session and return its pid. Raises OSError."""
        with self._starting:
            process = start_child(
                command,
                stdin=DEVNULL,
                stdout=stdout,
                stderr=DEVNULL,
                env={"PATH": search_path()},
                start_new_session=True,
            )
            self.running_pids.add(process.pid)
        return process.pid


def last_error(log: Path, status: int) -> str:
    """The last error in a runtime's log; without one, the exit status."""
    message = ""
    with suppress(OSError):
        for line in log.read_bytes().splitlines():
            with suppress(msgspec.MsgspecError):
                entry = msgspec.json.decode(line, type=_LogLine)
                message = entry.msg if entry.level in {"error", "fatal"} else message
    return message or f"exit status {status}"


async def _kill_group(starting: Awaitable[int]) -> None:
    """Kill a runtime and its process group, and reap the orphans, which become our children. Bounded."""
    try:
        pid = await starting
    except OSError:
        return  # it could not be started
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    # In an uninterruptible sleep, or traced, it exits later: `reap_strays` reaps it then.
    with suppress(TimeoutError, ChildProcessError):
        async with timeout(EXIT_TIMEOUT_S):
            await exit_status(pid)
    for _ in range(int(EXIT_TIMEOUT_S / POLL_S)):
        if not reap_one_of_group(pid):
            return
        await asyncio.sleep(POLL_S)
