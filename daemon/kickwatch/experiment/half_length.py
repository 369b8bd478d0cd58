"""How long a half of a pair is: as long as a container's life, and a short time for what it leaves behind. Pure.

It follows the latest lives, so it must be asked for before the coin of its pair is tossed.
"""

from collections import deque
from statistics import median

SETTLE_S = 0.05
_SPREAD = 1.1  # the next life may be the longest so far
_RECENT = 8
_ENOUGH = 4  # fewer lives cannot tell a slow life from a slow engine
_SLOW = 2.0  # times the median: a life slower than that makes no later half longer


class HalfLength:
    """The length of the next half."""

    def __init__(self, expected_life_s: float, least_s: float) -> None:
        """`expected_life_s`: of a life, until some are known. No half is shorter than `least_s`."""
        self._expected_s = expected_life_s
        self._least_s = least_s
        self._lives_s: deque[float] = deque(maxlen=_RECENT)

    def add(self, life_s: float) -> None:
        """Note a life, or a burst of lives, that did not fail: a failed one may have ended by a timeout."""
        self._lives_s.append(life_s)

    def seconds(self) -> float:
        """The length of the next half."""
        missing = [self._expected_s] * (_ENOUGH - len(self._lives_s))
        lives_s = [*self._lives_s, *missing]
        return max(half_of(min(max(lives_s), _SLOW * median(lives_s))), self._least_s)


def half_of(life_s: float) -> float:
    """The length of a half for lives of that length."""
    return _SPREAD * life_s + SETTLE_S
