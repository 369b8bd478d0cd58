"""What signals ask: to end with the clean-up done, to read the configuration again, to drain and to go on.

SIGHUP has two meanings. At a terminal that has just closed it ends a command like SIGTERM: nobody is left to stop it. A
service has no terminal, and a `kill -HUP` at an open one comes from a person: there it asks `run` for a reload. Under
nohup, which starts a command with SIGHUP ignored, a closed terminal ends nothing.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kickwatch.process.cancellation import timeout
from kickwatch.process.terminal import Terminal

T = TypeVar("T")
ENDING = (signal.SIGTERM, signal.SIGINT)
HANGUP = signal.SIGHUP
# A shell that exits signals the foreground before the terminal is taken from its session: look again after this time.
_CLOSES_WITHIN_S = 0.5


async def until_signalled(
    work: Coroutine[Any, Any, T],
    numbers: tuple[signal.Signals, ...] = (*ENDING, HANGUP),
    stopping: Callable[[], None] = lambda: None,
) -> T:
    """Run `work`; the first of `numbers` calls `stopping` and cancels it, and its clean-up runs to the end.

    Further signals change nothing: the clean-up is bounded. SIGHUP stays ignored where it is: nohup asks for that.
    Raises CancelledError when a signal came.
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


class Ending:
    """Who hears at once that the process was told to end, be it long before the clean-up comes to them."""

    def __init__(self, *listeners: Callable[[], None]) -> None:
        """`listeners` hear it first, in this order."""
        self._listeners = [*listeners]
        self.begun = False

    def begin(self) -> None:
        """For `until_signalled`."""
        self.begun = True
        for listener in self._listeners:
            listener()

    @contextmanager
    def tells(self, listener: Callable[[], None]) -> Iterator[None]:
        """It hears of an end that begins meanwhile."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class DrainedError(Exception):
    """The churn was stopped since the node is to be drained."""


class Switches:
    """SIGHUP asks for a reload, SIGUSR1 and the drain file for a drain. Use as a context manager in a running loop.

    When the terminal closes at which the daemon was started, SIGHUP becomes a SIGTERM.
    """

    def __init__(self, drain_file: str, terminal: Terminal | None = None) -> None:
        """`drain_file` may be empty."""
        self._terminal = terminal if terminal is not None else Terminal()
        self._outlives_terminal = _ignored(HANGUP)
        self._second_look: asyncio.TimerHandle | None = None
        self.drain_file = drain_file
        self.reload_asked = False
        self.drain_reported = ""  # who drained the node, as far as it was said: kept over reloads
        self._signalled = False
        self._woken = asyncio.Event()

    def __enter__(self) -> "Switches":
        """Listen to the signals."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(HANGUP, self._hung_up)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        return self

    def __exit__(self, *_: object) -> None:
        """Ignore them from now on: their default would end the clean-up."""
        loop = asyncio.get_running_loop()
        if self._second_look is not None:
            self._second_look.cancel()
        for number in (HANGUP, signal.SIGUSR1):
            loop.add_signal_handler(number, lambda: None)

    def _hung_up(self) -> None:
        if not self._end_if_closed():
            self._reload()
            self._second_look = asyncio.get_running_loop().call_later(_CLOSES_WITHIN_S, self._end_if_closed)

    def _end_if_closed(self) -> bool:
        closed = self._terminal.is_closed() and not self._outlives_terminal
        if closed:
            os.kill(os.getpid(), signal.SIGTERM)
        return closed

    def _reload(self) -> None:
        self.reload_asked = True
        self._woken.set()

    def _drain(self) -> None:
        self._signalled = not self._signalled
        self._woken.set()

    async def drained_by(self) -> str:
        """`signal`, `file`, or nothing."""
        if self._signalled:
            return "signal"
        if not self.drain_file:
            return ""
        try:
            present: bool = await asyncio.to_thread(Path(self.drain_file).exists)
        except OSError:  # a directory that may not be searched, a file server that is gone: as it was
            present = self.drain_reported == "file"
        return "file" if present else ""

    async def sleep(self, seconds: float) -> None:
        """Until then, or until a signal asks for something."""
        try:
            # No asyncio.wait_for(): Python 3.11's forgets a cancellation that comes together with the wake-up.
            async with timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def unless_drained(self, work: Coroutine[Any, Any, T], poll_s: float) -> T:
        """What `work` returns; DrainedError, with its clean-up done, where the node is drained meanwhile."""
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
                task.exception()  # what failed on the way out is of no account; asyncio would print it as unheard
            raise
        if task.cancelled():
            raise DrainedError
        return task.result()
