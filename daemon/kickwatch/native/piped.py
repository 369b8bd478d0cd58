"""A child process: a pipe to its standard input, a pipe from its standard output, and its standard error in memory."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen

from kickwatch.process.cancellation import run_shielded
from kickwatch.process.child import exit_status, reap_if_exited, start_child

KILLED_S = 5.0
_MOST_ERROR_BYTES = 65536
# One in uninterruptible sleep, or held back by a tracer, is reaped when the kernel lets it exit. Keeps its task alive.
_exiting: "set[asyncio.Task[None]]" = set()


class PipedChild:
    """`await start()`, then `write` and `read_line`; `end` must follow, even if `start` was cancelled."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        """The program and its arguments."""
        self._command = command
        self._process: Popen[bytes] | None = None
        self._stdout: asyncio.StreamReader | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._stderr = -1
        self._errors = ""
        self._status: int | None = None
        self._exit: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 if it was not started."""
        return self._process.pid if self._process is not None else 0

    @property
    def runs(self) -> bool:
        """True if it was started and has not exited."""
        return self._process is not None and self.status is None

    @property
    def status(self) -> int | None:
        """Its exit status, or 128 + the signal that killed it; None while it runs."""
        if self._process is not None and self._status is None and self._exit is None:
            self._status = reap_if_exited(self.pid)
        return self._status

    async def start(self) -> None:
        """Raises OSError. In a thread of the loop's pool, which lives as long as the loop: kw-helper ends with it."""
        process = await run_shielded(asyncio.to_thread(self._start))
        reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        self._stdout = reader

    def _start(self) -> "Popen[bytes]":
        self._stderr = os.memfd_create("kickwatch-stderr")
        try:
            self._process = start_child(self._command, stdin=PIPE, stdout=PIPE, stderr=self._stderr)
        except BaseException:
            os.close(self._stderr)
            raise
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        return self._process

    def write(self, line: bytes) -> None:
        """Write a short line. Raises BrokenPipeError if it has ended, BlockingIOError if it reads nothing."""
        if self._process is not None and self._process.stdin is not None:
            os.write(self._process.stdin.fileno(), line)

    async def read_line(self) -> bytes:
        """The next line of its standard output; empty at the end."""
        return await self._stdout.readline() if self._stdout is not None else b""

    async def end(self, timeout_s: float) -> str:
        """Close its standard input and wait for its exit; kill it after `timeout_s`. Returns its standard error."""
        if self._process is None:
            return ""
        self._close_stdin()
        draining = asyncio.create_task(self._drain())
        try:
            if not await self._exits(timeout_s):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)  # our child, not reaped: no other process can have its pid
                await self._exits(KILLED_S)
        finally:
            draining.cancel()
            self._close_stdout()
        return await asyncio.to_thread(self._read_errors)

    async def _exits(self, timeout_s: float) -> bool:
        if self.status is not None:
            return True
        if self._exit is None:
            self._exit = asyncio.create_task(self._reap())
            _exiting.add(self._exit)
            self._exit.add_done_callback(_exiting.discard)
        done, _ = await asyncio.wait([self._exit], timeout=timeout_s)
        return bool(done)

    async def _reap(self) -> None:
        self._status = await exit_status(self.pid)

    async def _drain(self) -> None:
        """Read on: a child that writes into a full pipe does not end."""
        while self._stdout is not None and await self._stdout.read(65536):
            pass

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _close_stdout(self) -> None:
        if self._transport is not None:
            self._transport.close()
        elif self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def _read_errors(self) -> str:
        if self._stderr >= 0:
            text = os.pread(self._stderr, _MOST_ERROR_BYTES, 0)
            os.close(self._stderr)
            self._stderr = -1
            self._errors = text.decode("utf-8", errors="replace").strip()
        return self._errors
