"""A command with its own session and pseudo-terminal, to test typing, Ctrl-C and closing the terminal window."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from command import DIES_WITH_US
from slowness import SLOWNESS

KICKWATCH = (sys.executable, "-m", "kickwatch")
INTERRUPT = "\x03"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class AtATerminal:
    """One process whose controlling terminal, standard input, output and error are a pseudo-terminal of the test.

    Use as `with AtATerminal([*KICKWATCH, "doctor"]) as command`; at the end it is killed if it still runs.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        columns: int = 80,
        errors: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`errors`: a file for standard error. `arguments`: the command, kickwatch or a shell that starts it."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.settings_before = termios.tcgetattr(ours)  # read later, they may be the command's already
        error_file = errors.open("wb") if errors is not None else None
        try:
            self.process = subprocess.Popen(
                # Children inherit ignored signals: SIGHUP under nohup, SIGINT in the background of a shell.
                [*DIES_WITH_US, "env", "--default-signal=HUP,INT,QUIT", "setsid", "--ctty", *map(str, arguments)],
                stdin=theirs,
                stdout=theirs,
                stderr=error_file or theirs,
                env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
            )
        finally:
            os.close(theirs)
            if error_file is not None:
                error_file.close()
        self._master: int | None = ours
        self._closing = False
        self._shown = bytearray()
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(ours,))
        self._reader.start()

    @property
    def text(self) -> str:
        """Its output so far, without colours and with newlines as in a file."""
        with self._news:
            shown = bytes(self._shown)
        return _COLOUR.sub("", shown.decode("utf-8", "replace")).replace("\r\n", "\n")

    def until(self, true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        """Wait until `true` returns true, checked at every output. Fails if the process exits or after `timeout_s`."""
        deadline = time.monotonic() + timeout_s * SLOWNESS
        while not true():
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended, f"exited with {self.process.returncode} before {what}: {self.text[-3000:]}"
            assert time.monotonic() < deadline, f"waited for {what}: {self.text[-3000:]}"
            with self._news:
                self._news.wait(0.2)

    def shows(self, part: str, timeout_s: float = 30.0, times: int = 1) -> None:
        """Wait until the output contains `part` `times` times."""
        self.until(lambda: self.text.count(part) >= times, f"{times} x {part!r}", timeout_s)

    def press(self, keys: str) -> None:
        """Type keys; for Ctrl-C the terminal sends a signal to the foreground process group."""
        assert self._master is not None
        os.write(self._master, keys.encode())

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Close the terminal, as when its window is closed: the kernel hangs it up."""
        master, self._master = self._master, None
        if master is not None:
            self._closing = True
            self._reader.join()
            os.close(master)

    def ended(self, timeout_s: float = 60.0) -> int:
        """Wait for the exit and the rest of the output; return the exit status."""
        try:
            status = self.process.wait(timeout_s * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s: {self.text[-3000:]}") from None
        if self._master is not None:
            self._reader.join()
        return status

    def __enter__(self) -> Self:
        """The process is already running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process if it still runs: close the terminal, then SIGTERM, then SIGKILL."""
        self.close()
        for end in (lambda: None, self.process.terminate, self.process.kill):
            end()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10 * SLOWNESS)
                return

    def _read(self, master: int) -> None:
        """Never blocks in read(), which would prevent closing the terminal."""
        poll = select.poll()
        poll.register(master, select.POLLIN)
        while not self._closing:
            if not poll.poll(50):
                continue
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # EIO: no process has the other end open
                return
            with self._news:
                self._shown += part
                self._news.notify_all()
