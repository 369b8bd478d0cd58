"""How long a half of a pair is: as long as a container's life, and a short time for what it leaves behind. Pure.

It follows the latest lives, so it must be asked for before the coin of its pair is tossed.
"""

from collections import deque

SETTLE_S = 0.05
_RECENT = 8
_LONG = 2  # the second longest of the latest lives: one slow life makes no later half long


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
        known = sorted(self._lives_s, reverse=True)
        if len(known) < _RECENT // 2:  # too few to tell a slow life from a slow engine
            known = [self._expected_s, *known[1:], self._expected_s]
        return max(sorted(known, reverse=True)[_LONG - 1] + SETTLE_S, self._least_s)
