"""The controlling terminal of this process: whether there is one, and whether it has been closed."""

import errno
import os

_TERMINAL = "/dev/tty"
_CLOSED = frozenset({errno.ENXIO, errno.EIO})  # tty(4): no controlling terminal; a terminal that was hung up


class Terminal:
    """The terminal at which kickwatch was started, whatever its standard streams are connected to.

    A service, a cron job or a program under `setsid` has none. When a terminal closes, the kernel takes it from all
    processes of its session before it sends SIGHUP; so a SIGHUP that finds it still there came from a person.
    """

    def __init__(self) -> None:
        """Looks once: the answer counts for this process."""
        self.was_there = _error_of_opening() == 0

    def is_closed(self) -> bool:
        """Whether there was one that is gone. Doubt, such as no free descriptor, means no."""
        return self.was_there and _error_of_opening() in _CLOSED


def _error_of_opening() -> int:
    """0 where it opens. Neither waits for a carrier nor becomes the terminal of a process that has none."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
