"""File descriptors that may not be ready."""

import select
from typing import Protocol


class HasFileno(Protocol):
    """A socket, a file, a pipe."""

    def fileno(self) -> int:
        """Its descriptor."""


def wait_writable(file: HasFileno | int, wait_ms: int | None) -> bool:
    """Wait until `file` can be written to. False if it cannot within `wait_ms`; None waits for ever."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(wait_ms))
