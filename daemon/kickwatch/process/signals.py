"""Signals: SIGTERM and SIGINT end a command after its clean-up, SIGHUP reloads the configuration, SIGUSR1 drains.

SIGHUP has two meanings. When the terminal has just closed, it ends a command like SIGTERM, since nobody is left to stop
it. In a service, which has no terminal, or while the terminal is open, a person sent it: then it makes `run` reload its
configuration. Under nohup, which starts a command with SIGHUP ignored, a closed terminal ends nothing.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kickwatch.process.cancellation import timeout
from kickwatch.process.terminal import Terminal

T = TypeVar("T")
TERMINATION = (signal.SIGTERM, signal.SIGINT)
HANGUP = signal.SIGHUP
# An exiting shell sends SIGHUP before the kernel detaches the terminal from its session: check again after this time.
_CLOSES_WITHIN_S = 0.5


async def until_signalled(
    work: Coroutine[Any, Any, T],
    numbers: tuple[signal.Signals, ...] = (*TERMINATION, HANGUP),
    stopping: Callable[[], None] = lambda: None,
) -> T:
    """Run `work`. The first signal of `numbers` calls `stopping` and cancels `work`, whose clean-up runs to the end.

    Further signals have no effect: the clean-up has a time limit. SIGHUP stays ignored if it was, as under nohup.
    Raises CancelledError after a signal.
    """
    numbers = tuple(number for number in numbers if number is not HANGUP or not _ignored(number))
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in numbers:
            loop.add_signal_handler(number, lambda: None)
        stopping()
        task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


class Shutdown:
    """Callbacks that run as soon as shutdown starts, before clean-up."""

    def __init__(self, *callbacks: Callable[[], None]) -> None:
        """`callbacks` run first, in this order."""
        self._callbacks = [*callbacks]
        self.begun = False

    def begin(self) -> None:
        """Run the callbacks; for `until_signalled`."""
        self.begun = True
        for callback in self._callbacks:
            callback()

    @contextmanager
    def calls(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within this context, shutdown calls `callback` as well."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)


class DrainedError(Exception):
    """The work was stopped because the node is being drained."""


class Switches:
    """SIGHUP requests a reload; SIGUSR1 and the drain file request a drain. A context manager, in a running loop.

    If the terminal that the daemon was started from closes, SIGHUP acts as SIGTERM.
    """

    def __init__(self, drain_file: str, terminal: Terminal | None = None) -> None:
        """`drain_file` may be empty."""
        self._terminal = terminal if terminal is not None else Terminal()
        self._outlives_terminal = _ignored(HANGUP)
        self._second_check: asyncio.TimerHandle | None = None
        self.drain_file = drain_file
        self.reload_asked = False
        self._signalled = False
        self._file_present = False  # as last seen
        self._wake_up = asyncio.Event()

    def __enter__(self) -> "Switches":
        """Install the signal handlers."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(HANGUP, self._hung_up)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        return self

    def __exit__(self, *_: object) -> None:
        """Ignore these signals from now on: their default action would interrupt the clean-up."""
        loop = asyncio.get_running_loop()
        if self._second_check is not None:
            self._second_check.cancel()
        for number in (HANGUP, signal.SIGUSR1):
            loop.add_signal_handler(number, lambda: None)

    def _hung_up(self) -> None:
        if not self._end_if_closed():
            self._reload()
            self._second_check = asyncio.get_running_loop().call_later(_CLOSES_WITHIN_S, self._end_if_closed)

    def _end_if_closed(self) -> bool:
        closed = self._terminal.is_closed() and not self._outlives_terminal
        if closed:
            os.kill(os.getpid(), signal.SIGTERM)
        return closed

    def _reload(self) -> None:
        self.reload_asked = True
        self._wake_up.set()

    def _drain(self) -> None:
        self._signalled = not self._signalled
        self._wake_up.set()

    async def drained_by(self) -> str:
        """What drains the node now: `signal`, `file`, or an empty string."""
        if self._signalled:
            return "signal"
        if not self.drain_file:
            self._file_present = False
            return ""
        with suppress(OSError):  # a directory without permission, a file server that is down: assume no change
            self._file_present = await asyncio.to_thread(Path(self.drain_file).exists)
        return "file" if self._file_present else ""

    async def sleep(self, seconds: float) -> None:
        """Sleep, or return early when a signal requests something."""
        try:
            # Not asyncio.wait_for(): in Python 3.11 it loses a cancellation that arrives together with the wake-up.
            async with timeout(max(0.0, seconds)):
                await self._wake_up.wait()
        except TimeoutError:
            return
        self._wake_up.clear()

    async def unless_drained(self, work: Coroutine[Any, Any, T], poll_s: float) -> T:
        """The result of `work`. Raises DrainedError after its clean-up if the node is drained meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=poll_s))[0]:
                if await self.drained_by():
                    task.cancel()
                    await asyncio.wait([task])
                    break
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # retrieve an error of the clean-up, which asyncio would print otherwise
            raise
        if task.cancelled():
            raise DrainedError
        return task.result()
