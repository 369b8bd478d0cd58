"""Standard output and standard error as the commands need them: always open, and with one way to fail.

- If a result cannot be written, the command ends with an OutputError: one line and an exit status. Python's own streams
  raise OSError, which looks like a bug in kickwatch, and fail again at exit (status 120).
- Standard error is the last place to report anything, so text that cannot be written to it is dropped.
- A descriptor that the caller closed is opened on /dev/null in the wrong direction. Writing to it fails, as it should,
  and no file or socket of ours gets its number and with it text meant for the terminal.
"""

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from kickwatch.errors import OutputError, ReaderGoneError
from kickwatch.process.descriptors import wait_writable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# How long a line waits if the caller made the descriptor non-blocking and it is full. A result waits for as long as it
# takes, as on a blocking descriptor.
_ERROR_WAIT_MS = 100


def prepare() -> None:
    """Replace `sys.stdout` and `sys.stderr`. Call it before writing or opening anything."""
    for number, direction in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, direction), True)  # gets the lowest free number: this one
    result = io.BufferedWriter(_ResultFile(1))
    encodings = [_encoding(stream) for stream in (sys.stdout, sys.stderr)]
    # Characters that the encoding lacks, such as a lone surrogate from a file name, are written as escapes.
    sys.stdout = io.TextIOWrapper(result, encodings[0], "backslashreplace", line_buffering=result.isatty())
    sys.stderr = StandardError(_CompleteWriter(2, _ERROR_WAIT_MS), encodings[1], "backslashreplace", write_through=True)


def _encoding(stream: TextIO | None) -> str:
    """The stream's encoding, with UTF-8 for ASCII: click would replace an ASCII stream, and so undo this module."""
    named = stream.encoding if stream is not None else "utf-8"
    return "utf-8" if codecs.lookup(named).name == "ascii" else named


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class StandardError(io.TextIOWrapper):
    """Never raises. `write` returns 0 if nothing was written."""

    def write(self, text: str, /) -> int:
        """The number of characters written."""
        try:
            return super().write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        """Nothing to do: lines are written through."""
        with suppress(OSError, ValueError):
            super().flush()


class _CompleteWriter(io.FileIO):
    """Writes everything or raises OSError; waits if the descriptor is non-blocking and full."""

    def __init__(self, descriptor: int, wait_ms: int | None) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._wait_ms = wait_ms

    def write(self, data: "ReadableBuffer", /) -> int:
        """The number of bytes in `data`."""
        left = memoryview(data).cast("B")
        length = len(left)
        while left:
            written = super().write(left)
            if written is not None:
                left = left[written:]
            elif not wait_writable(self, self._wait_ms):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return length


class _ResultFile(_CompleteWriter):
    """Raises OutputError once. What the buffers still hold is then dropped, so the exit does not fail again."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, None)
        self._failed = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """The number of bytes in `data`. Raises OutputError; ReaderGoneError for a pipe without a reader."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if error.errno == errno.EPIPE:
                raise ReaderGoneError("the reader of standard output has ended") from error
            what = f"cannot write to standard output ({error.strerror})"
            raise OutputError(what, "redirect it to a file or pipe that can be written") from error
