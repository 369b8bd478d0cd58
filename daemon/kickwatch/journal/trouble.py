"""A failure that lasts for a while: logged when it starts, when its cause changes, and when it is over."""

import time
from dataclasses import dataclass, field
from typing import Any

from kickwatch.journal.alert import Alert, log
from kickwatch.journal.journal import Event


@dataclass
class TroubleLog:
    """One thing that may fail. `begins` is a warning with `what` and `remedy`; `ends` has `lasted_s`."""

    begins: Event
    ends: Event
    _what: str = field(default="", init=False)
    _since_s: float = field(default=0.0, init=False)

    @property
    def lasts(self) -> bool:
        """True if it failed the last time."""
        return bool(self._what)

    def failed(self, what: str, remedy: str) -> None:
        """Report a failure. `what` must not be empty."""
        if not self._what:
            self._since_s = time.monotonic()
        if what != self._what:
            self._what = what
            log(Alert("warning", self.begins, {"what": what, "remedy": remedy}))

    def works(self, **fields: Any) -> None:
        """Report a success. `fields` are further keys of the event that ends the trouble."""
        if self._what:
            lasted_s = round(time.monotonic() - self._since_s, 1)
            log(Alert("info", self.ends, {"lasted_s": lasted_s, **fields}))
        self.forget()

    def forget(self) -> None:
        """End the trouble without an event: the thing is no longer configured."""
        self._what = ""
