"""A terminal that shows one screen after another, sends only the lines that changed, and is restored at the end.

Restored after a key, a signal, or an exception: the screen from before, the cursor, echo. Ctrl-Z restores it as well.
"""

import errno
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from rich.text import Text

from kickwatch.errors import OutputError, ReaderGoneError
from kickwatch.terminal.console import console

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, no wrapping at the right edge
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[2J"
_KEYS_THAT_END = b"qQ"
_REDRAW = b"\x0c"  # Ctrl-L


class Waiter:
    """Waits for time, a key, or a signal. A context manager: within it the signals end the wait, not the process."""

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self.ended = False
        self._before: dict[int, Any] = {}
        self._pipe = (-1, -1)
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        """Install the handlers. A signal that is ignored, as SIGHUP under nohup, stays ignored."""
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in ENDINGS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._end)
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        for end in self._pipe:
            os.close(end)

    def wait(self, seconds: float, keys: int | None = None, reader: int | None = None) -> bytes:
        """The keys pressed; empty after `seconds` or a signal. `keys`: a terminal. `reader`: a pipe that is written to.

        Raises ReaderGoneError as soon as the reader of that pipe has ended.
        """
        if self.ended:
            return b""
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        if keys is not None:
            poll.register(keys, select.POLLIN)
        if reader is not None:
            poll.register(reader, 0)
        for descriptor, event in poll.poll(seconds * 1000):
            if descriptor == self._pipe[0]:
                os.read(self._pipe[0], 4096)
            elif descriptor == reader and event & (select.POLLERR | select.POLLHUP):
                raise ReaderGoneError("the reader of standard output has ended")
            elif descriptor == keys:
                return self._read(keys)
        return b""

    def _read(self, keys: int) -> bytes:
        """Keys. A terminal that has gone, or standard input at its end, ends the watch."""
        with suppress(OSError):
            if pressed := os.read(keys, 64):
                self.ended = self.ended or any(key in _KEYS_THAT_END for key in pressed)
                return pressed
        self.ended = True
        return b""

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.ended = True


class Screen:
    """The terminal of standard output, and the keys of standard input if that is a terminal as well."""

    def __init__(self, waiter: Waiter) -> None:
        """`waiter` must be entered already."""
        self._waiter = waiter
        self._keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._settings: list[Any] | None = None
        self._shown: list[str] = []
        self._size = (0, 0)
        self._stop_before: Any = None
        self._stop_asked = False

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._stop_before = signal.signal(signal.SIGTSTP, self._stop)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back as it was."""
        self._give_back()
        signal.signal(signal.SIGTSTP, self._stop_before)

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows), now."""
        with suppress(OSError):
            found = os.get_terminal_size(sys.stdout.fileno())
            if found.columns > 0 and found.lines > 0:
                return found.columns, found.lines
        return 80, 24

    def show(self, lines: Sequence[Text], size: tuple[int, int]) -> None:
        """Draw the lines that differ from what is there; all after a change of size."""
        columns, rows = size
        sent: list[str] = []
        if size != self._size:
            self._size, self._shown = size, []
            sent.append(_CLEAR)
        drawn = _drawn(lines[:rows], columns)
        for number, line in enumerate(drawn):
            if number >= len(self._shown) or self._shown[number] != line:
                sent.append(f"\x1b[{number + 1};1H\x1b[2K{line}")
        self._shown = drawn
        if sent:
            sys.stdout.write("".join(sent))
            sys.stdout.flush()

    def wait(self, seconds: float) -> None:
        """Until it is time to look again; shorter after a key or a signal."""
        if self._waiter.wait(seconds, self._keys) == _REDRAW:
            self._size = (0, 0)
        if self._stop_asked:
            self._stop_asked = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()

    def _take(self) -> None:
        self._settings = self._take_keys()
        self._size = (0, 0)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def _take_keys(self) -> list[Any] | None:
        """The terminal's settings from before; None where they stay as they are.

        A job in the background stops here until its shell continues it (SIGTTOU). One that is ended there is
        interrupted, and one whose shell is gone gets no keys.
        """
        while self._keys is not None and not self._waiter.ended:
            try:
                before: list[Any] = termios.tcgetattr(self._keys)
                tty.setcbreak(self._keys, termios.TCSANOW)
            except termios.error as error:
                if error.args[0] != errno.EINTR:
                    self._keys = None
            else:
                return before
        return None

    def _give_back(self) -> None:
        try:
            with suppress(OutputError):  # the terminal was closed: there is nothing to restore
                sys.stdout.write(_LEAVE)
                sys.stdout.flush()
        finally:
            if self._keys is not None and self._settings is not None:
                with suppress(termios.error, OSError):  # the terminal has gone
                    termios.tcsetattr(self._keys, termios.TCSADRAIN, self._settings)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: after what is being drawn, the shell gets its own screen; `fg` draws ours again."""
        self._stop_asked = True


def _drawn(lines: Sequence[Text], columns: int) -> list[str]:
    """With the colours of this terminal, or without."""
    drawing = console(sys.stdout, columns=columns)
    drawn = []
    for line in lines:
        with drawing.capture() as captured:
            drawing.print(line, end="", no_wrap=True, crop=True)
        drawn.append(captured.get())
    return drawn
