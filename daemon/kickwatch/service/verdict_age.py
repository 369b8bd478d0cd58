"""How long ago the verdict was last confirmed, on a clock that nobody sets."""

import time
from collections.abc import Callable


class VerdictAge:
    """Seconds since the last trial that could establish something; across restarts by the wall clock."""

    def __init__(self, looked_unix_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        """`looked_unix_s`: when that trial of an earlier daemon began; 0 for none.

        A wall clock that was set back makes it no younger than now.
        """
        self._now_s = now_s
        self._looked_unix_s = looked_unix_s
        self._looked_at_s = now_s() - max(0.0, time.time() - looked_unix_s) if looked_unix_s else None

    def looked(self, looked_unix_s: float) -> None:
        """After a trial: another time than before says that this one could establish something."""
        if looked_unix_s != self._looked_unix_s:
            self._looked_unix_s, self._looked_at_s = looked_unix_s, self._now_s()

    @property
    def seconds(self) -> float | None:
        """None while nothing was ever established."""
        return None if self._looked_at_s is None else self._now_s() - self._looked_at_s


def rounded(seconds: float | None) -> float | None:
    """As records of the log have it."""
    return None if seconds is None else round(seconds, 1)
