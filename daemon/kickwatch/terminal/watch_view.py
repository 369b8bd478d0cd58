"""What `kickwatch watch` knows: the latest look at the daemon, and what it saw before. Draws nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kickwatch.outlets.status import Presence, Sight, Status, look


@dataclass(frozen=True)
class View:
    """One look. `last`: the newest status of a daemon that no longer runs; None while one runs, and if there is none.

    `seen_until_unix_s`: when the daemon was last seen running, by this watch or by its own file; None if it never was.
    """

    sight: Sight
    now_unix_s: float
    seen_until_unix_s: float | None = None

    @property
    def status(self) -> Status | None:
        """The status of the running daemon, and of no other."""
        return self.sight.status if self.sight.presence is Presence.RUNNING else None

    @property
    def last(self) -> Status | None:
        """What a daemon wrote that no longer runs."""
        return None if self.sight.presence is Presence.RUNNING else self.sight.status


class Viewer:
    """Looks at the daemon again and again; remembers the daemon that it saw last."""

    def __init__(self, look: Callable[[], Sight] = look, now_unix_s: Callable[[], float] = time.time) -> None:
        """Nothing is seen yet."""
        self._look = look
        self._now_unix_s = now_unix_s
        self._last: Status | None = None
        self._seen_until_unix_s: float | None = None

    def view(self) -> View:
        """Look once more."""
        sight, now_unix_s = self._look(), self._now_unix_s()
        if sight.presence is Presence.RUNNING and sight.status is not None:
            self._last, self._seen_until_unix_s = sight.status, now_unix_s
            return View(sight, now_unix_s)
        last = sight.status or self._last
        seen_s = self._seen_until_unix_s or (last.updated_unix_s if last is not None else None)
        return View(Sight(sight.presence, last, sight.holder, sight.why), now_unix_s, seen_s)
