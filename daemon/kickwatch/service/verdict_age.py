"""Time since the verdict was last confirmed, on a clock that cannot be set."""

import time
from collections.abc import Callable


class VerdictAge:
    """Seconds since the last trial that could establish something; across restarts by the wall clock."""

    def __init__(self, looked_unix_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        """`looked_unix_s`: when that trial of an earlier daemon began; 0 for none.

        If the wall clock was set back meanwhile, the age begins at 0.
        """
        self._now_s = now_s
        self._looked_unix_s = looked_unix_s
        self._looked_at_s = now_s() - max(0.0, time.time() - looked_unix_s) if looked_unix_s else None

    def looked(self, looked_unix_s: float) -> None:
        """Call after each trial: a time other than before means that this one could establish something."""
        if looked_unix_s != self._looked_unix_s:
            self._looked_unix_s, self._looked_at_s = looked_unix_s, self._now_s()

    @property
    def seconds(self) -> float | None:
        """None before the first such trial."""
        return None if self._looked_at_s is None else self._now_s() - self._looked_at_s
