"""Back-off: an engine that is gone, or any other error between trials, is tried again after 1, 2, 4 ... 60 s."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kickwatch.errors import EngineAbsentError, KickwatchError
from kickwatch.outlets.events import EngineFound, EngineLost, SessionFailed
from kickwatch.outlets.outlet import Report

_FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


@dataclass
class EngineBackoff:
    """How long the engine has been gone, and when to try again. `changed`: it is another one than before."""

    report: Report
    now_s: Callable[[], float] = time.monotonic
    changed: bool = False
    _retry_s: float = _FIRST_RETRY_S
    _lost_s: float | None = None

    @property
    def waiting(self) -> bool:
        """True while the engine is gone."""
        return self._lost_s is not None

    async def failed(self, error: KickwatchError | OSError) -> float:
        """Report the error, a lost engine only once. Returns how long to wait, longer each time."""
        if isinstance(error, EngineAbsentError):
            await self.lost(error)
        else:
            await self.report(SessionFailed(**error_fields(error), retry_s=self._retry_s))
        pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, LONGEST_RETRY_S)
        return pause_s

    async def lost(self, error: EngineAbsentError) -> None:
        """Report it once, and before clean-up, which can take a while without an engine."""
        if self._lost_s is None:
            self._lost_s = self.now_s()
            await self.report(EngineLost(**error_fields(error), retry_s=self._retry_s))

    def works(self) -> None:
        """What failed works again, without an engine: the next error waits as short as the first."""
        self._retry_s = _FIRST_RETRY_S

    async def found(self, engine: str) -> None:
        """An engine answers. Report that if it was gone, or is another one."""
        self.works()
        if self.waiting or self.changed:
            lost_s = 0.0 if self._lost_s is None else round(self.now_s() - self._lost_s, 1)
            self._lost_s, self.changed = None, False
            await self.report(EngineFound(engine, lost_s))


def error_fields(error: KickwatchError | OSError) -> dict[str, str]:
    """`what` and `remedy` of an event."""
    if isinstance(error, KickwatchError):
        return {"what": error.what, "remedy": error.remedy}
    return {"what": str(error), "remedy": "kickwatch tries again"}
