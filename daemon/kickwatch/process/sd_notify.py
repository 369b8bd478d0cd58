"""Messages to systemd: ready, status, watchdog, more time to stop (sd_notify(3)).

`progress` feeds the watchdog. The main state machine calls it at each step: when a container's step ends or reaches its
deadline, when the guard decides, at a retry. No timer calls it. So systemd restarts a daemon that is stuck, but not one
that waits for an engine, for the budget or for the end of a drain.
"""

import os
import socket
from collections.abc import Mapping
from time import monotonic, monotonic_ns
from typing import Self

_PROGRESS_EVERY_S = 1.0
_STOP_EXTENSION_S = 20.0


class Notifier:
    """A connection to NOTIFY_SOCKET. Sends nothing if there is none, and never raises."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address`: a path, or `@name` in the abstract namespace. `watchdog_s`: None without a watchdog."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._fed_at = 0.0
        self._stopping = False
        self.doing = ""
        self.watchdog_s = watchdog_s
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3))."""
        given = os.environ if environment is None else environment
        for_us = given.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = given.get("WATCHDOG_USEC", "")
        watchdog_s = int(usec) / 1e6 if usec.isdigit() and int(usec) and for_us else None
        return cls(given.get("NOTIFY_SOCKET", ""), watchdog_s)

    def need_watchdog(self, longest_step_s: float) -> None:
        """Ask systemd for a longer watchdog if one of our steps may take longer than the unit allows."""
        if self.watchdog_s is not None and self.watchdog_s < longest_step_s:
            self.watchdog_s = longest_step_s
            self._send(f"WATCHDOG_USEC={int(longest_step_s * 1e6)}")

    def ready(self) -> None:
        """Start-up is done, or a reload is."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A new configuration is being read; `ready` ends the reload. systemd needs the time to match the two."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Clean-up has begun. From now on each step asks for more time, or systemd would kill the daemon."""
        self._stopping = True
        self._send("STOPPING=1")
        self.progress()

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` and `kickwatch status` show. Sent only when it changes."""
        if text != self.doing:
            self.doing = text
            self._send(f"STATUS={' '.join(text.split())}")

    def progress(self) -> None:
        """The main state machine has made a step: feed the watchdog, at most once a second."""
        now = monotonic()
        if self._socket is None or now - self._fed_at < _PROGRESS_EVERY_S:
            return
        self._fed_at = now
        words = ["WATCHDOG=1"] if self.watchdog_s is not None else []
        words += [f"EXTEND_TIMEOUT_USEC={int(_STOP_EXTENSION_S * 1e6)}"] if self._stopping else []
        if words:
            self._send("\n".join(words))

    def close(self) -> None:
        """Send nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        """Errors are ignored: systemd may be gone or busy, and there will be another message."""
        if self._socket is not None:
            try:
                self._socket.sendto(message.encode(), self._address)
            except OSError:
                return
