"""Standard output and standard error as commands need them: open, and failing in one known way.

- A result that cannot be written ends the command with an OutputError, whoever writes it: one line and a status. The
  interpreter's own streams raise OSError, which reads as a fault of kickwatch, and once more at the exit (status 120).
- Standard error is the last place to report anything, so what cannot be written to it is dropped.
- A descriptor that was closed by the caller is opened on /dev/null in the wrong direction: writing to it fails, and no
  file or socket of ours takes its number, and with it what was meant for a terminal.
"""

import codecs
import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from kickwatch.errors import OutputError, ReaderGoneError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# How long a line waits for room where the caller has made the descriptor non-blocking. A result waits for as long as it
# takes, as it does on a descriptor that blocks.
_ERROR_WAIT_MS = 100


def prepare() -> None:
    """Replace `sys.stdout` and `sys.stderr`. Call it before anything is written or opened."""
    for number, direction in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, direction), True)  # takes the lowest number that is free: this one
    result = io.BufferedWriter(_Result(1))
    encodings = [_encoding(stream) for stream in (sys.stdout, sys.stderr)]
    # What an encoding lacks, a lone surrogate from a file's name for one, is written as an escape.
    sys.stdout = io.TextIOWrapper(result, encodings[0], "backslashreplace", line_buffering=result.isatty())
    sys.stderr = StandardError(_Whole(2, _ERROR_WAIT_MS), encodings[1], "backslashreplace", write_through=True)


def _encoding(stream: TextIO | None) -> str:
    """UTF-8 instead of ASCII, as click has it: it would replace an ASCII stream, and with it what this module does."""
    named = stream.encoding if stream is not None else "utf-8"
    return "utf-8" if codecs.lookup(named).name == "ascii" else named


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class StandardError(io.TextIOWrapper):
    """Raises nothing. `write` returns 0 where nothing was written."""

    def write(self, text: str, /) -> int:
        """How many characters were written."""
        try:
            return super().write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        """There is nothing to flush: lines are written through."""
        with suppress(OSError, ValueError):
            super().flush()


class _Whole(io.FileIO):
    """Writes all it is given or raises OSError; a non-blocking descriptor is waited for."""

    def __init__(self, descriptor: int, wait_ms: int | None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._wait_ms = wait_ms

    def write(self, data: "ReadableBuffer", /) -> int:
        """The number of bytes in `data`."""
        left = memoryview(data).cast("B")
        length = len(left)
        while left:
            written = super().write(left)
            if written is None:
                self._wait()
            else:
                left = left[written:]
        return length

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        if not poll.poll(self._wait_ms):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class _Result(_Whole):
    """Raises OutputError once; what buffers still hold is dropped then, so that the exit does not fail again."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, None)
        self._failed = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """The number of bytes in `data`. Raises OutputError, for a pipe without a reader ReaderGoneError."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if error.errno == errno.EPIPE:
                raise ReaderGoneError("nobody reads standard output any more") from error
            what = f"standard output cannot be written ({error.strerror})"
            raise OutputError(what, "redirect it to where it can be written") from error
