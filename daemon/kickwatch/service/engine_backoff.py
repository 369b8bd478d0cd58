"""An engine that is gone, or anything else that hinders: said, and tried again after 1, 2, 4 ... 60 s."""

import asyncio
from dataclasses import dataclass

from kickwatch.errors import EngineAbsentError, KickwatchError
from kickwatch.journal.journal import Event, logger

_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


@dataclass
class EngineBackoff:
    """How long has the engine been gone, and when is the next try? `changed`: it has become another one meanwhile."""

    changed: bool = False
    _retry_s: float = _FIRST_RETRY_S
    _lost_at: float = 0.0

    @property
    def waiting(self) -> bool:
        """Whether the engine is gone."""
        return bool(self._lost_at)

    def pause_s(self, error: KickwatchError | OSError) -> float:
        """Say that the engine is gone (once) or what else is wrong; returns how long to wait, longer each time."""
        if isinstance(error, EngineAbsentError):
            self.lost(error)
        else:
            logger().error(Event.TRIAL_FAILED, **error_fields(error), retry_s=self._retry_s)
        pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, _LONGEST_RETRY_S)
        return pause_s

    def lost(self, error: EngineAbsentError) -> None:
        """Said once, and at once: to take down what it held can take a while."""
        if not self._lost_at:
            self._lost_at = asyncio.get_running_loop().time()
            logger().error(Event.ENGINE_LOST, **error_fields(error), retry_s=self._retry_s)

    def found(self, engine: str) -> None:
        """It answers; said where it was gone, or is another one."""
        self._retry_s = _FIRST_RETRY_S
        if self._lost_at or self.changed:
            lost_s = round(asyncio.get_running_loop().time() - self._lost_at, 1) if self._lost_at else 0.0
            self._lost_at, self.changed = 0.0, False
            logger().info(Event.ENGINE_FOUND, engine=engine, lost_s=lost_s)


def error_fields(error: KickwatchError | OSError) -> dict[str, str]:
    """`what` and `remedy` of an event."""
    if isinstance(error, KickwatchError):
        return {"what": error.what, "remedy": error.remedy}
    return {"what": str(error), "remedy": "it is tried again"}
