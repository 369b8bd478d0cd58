"""The controlling terminal of this process: is there one, and has it been closed?"""

import errno
import os

_TERMINAL = "/dev/tty"
_CLOSED = frozenset({errno.ENXIO, errno.EIO})  # tty(4): no controlling terminal; a hung-up terminal


class Terminal:
    """The terminal from which kickwatch was started, even if its standard streams are connected elsewhere.

    A service, a cron job or a program under `setsid` has none. When a terminal closes, the kernel detaches it from all
    processes of its session before it sends SIGHUP. So if the terminal is still there, a person sent the SIGHUP.
    """

    def __init__(self) -> None:
        """Checks once whether there is a terminal."""
        self.was_there = _error_of_opening() == 0

    def is_closed(self) -> bool:
        """True if there was a terminal and it is gone. False if that cannot be checked: no free descriptor."""
        return self.was_there and _error_of_opening() in _CLOSED


def _error_of_opening() -> int:
    """The errno of opening the terminal; 0 if it opens. Does not wait for a carrier, and acquires no terminal."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
