"""This node against its own record: does a cell cost more per container than under the previous kernel release?

Under the old stratum a `Reference` collects the cell's observations in a histogram. It gives an upper confidence bound
of their mean, by the same bets as everywhere (Waudby-Smith and Ramdas, arXiv 2010.09686, section 4). A short record
therefore gives a high bound and a slow test, not a false alarm. Under the new stratum an e-detector watches the null
"the mean is at most `TOLERANCE` times that bound".

It assumes that on a healthy node each new observation's mean, given the past, is within TOLERANCE of the average of the
old ones. For each stratum that is left the bound itself is too low with probability `REFERENCE_ALPHA`, and then the
null means nothing.
"""

from collections.abc import Iterable

import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.recovery import Ceiling, Hysteresis
from kickwatch.detect.scaled import add_up, power, stake_and_multiply
from kickwatch.detect.wager import Null, Wager

TOLERANCE = 1.25  # what an update, another engine version or the time of day may add without an alarm
REFERENCE_ALPHA = 1e-7  # 50 cells and 20 updates a year take 1e-4 of a false alarm a year
BURN_IN = 32  # observations that only choose the clip
BINS = 256
ROOM_ABOVE_MEAN = 3.0  # the clip lies at 3 means + 4: a doubling fits below it
ROOM_ABOVE_ZERO = 4.0
MOST_OF_CLIP = 0.75  # observations can hardly contradict a null that is nearer to the clip


class Reference(msgspec.Struct, frozen=True):
    """A cell's record under one stratum. Bin k holds observations in ((k - 1) * width, k * width]."""

    burnt: int = 0
    burnt_sum: float = 0.0
    width: float = 0.0  # 0 until the burn-in is over
    bins: int = 0
    counts: tuple[int, ...] = ()  # of bins 0, 1, 2, ... as far as there are any

    @property
    def observations(self) -> int:
        """How many observations the bound rests on."""
        return sum(self.counts)

    @property
    def clip(self) -> float:
        """Where the old and the new observations are clipped."""
        return self.bins * self.width

    @property
    def mean(self) -> float:
        """The mean of the observations in the record, for people to read; 0 while there are none."""
        total = sum(bin_ * count for bin_, count in enumerate(self.counts))
        return total * self.width / self.observations if self.observations else 0.0

    def with_observation(self, x: float) -> "Reference":
        """The record after one more observation. Raises ValueError for a negative x or NaN."""
        return self.with_observations((x,))

    def with_observations(self, observations: Iterable[float]) -> "Reference":
        """The record after more of them, one by one."""
        burnt, burnt_sum, width, bins = self.burnt, self.burnt_sum, self.width, self.bins
        counts = list(self.counts)
        for x in observations:
            if not x >= 0.0:
                raise ValueError(f"an observation is at least 0; it is {x}")
            if burnt < BURN_IN:
                burnt, burnt_sum = burnt + 1, burnt_sum + x
                width, bins = _scale(burnt_sum / burnt) if burnt == BURN_IN else (0.0, 0)
                continue
            bin_ = _bin(x, width) if x < bins * width else bins
            counts += [0] * (bin_ + 1 - len(counts))
            counts[bin_] += 1
        return Reference(burnt, burnt_sum, width, bins, tuple(counts))

    def upper_bound(self, alpha: float = REFERENCE_ALPHA) -> float | None:
        """A bound that the mean exceeds with probability at most `alpha`; None if the record is too short for one."""
        low, high = 0, self.bins - 1
        if high < 1 or not self._speaks_against(high, alpha):
            return None
        while high - low > 1:  # the evidence against "the mean is at least m" rises with m
            middle = (low + high) // 2
            low, high = (low, middle) if self._speaks_against(middle, alpha) else (middle, high)
        return high * self.width

    def _speaks_against(self, bins: int, alpha: float) -> bool:
        """Whether the evidence against "the mean is at least `bins` bins" is 1/alpha or more."""
        wager = Wager(Null(mean=float(self.bins - bins), clip=float(self.bins)))  # of clip - x, counted in bins
        money = [(stake, 0) for stake in wager.stakes]
        for bin_, count in enumerate(self.counts):
            if count:
                powers = (power(factor, count) for factor in wager.factors(float(self.bins - bin_)))
                money = [
                    stake_and_multiply(value, exponent + grown.exponent, 0.0, grown.mantissa)
                    for (value, exponent), grown in zip(money, powers, strict=True)
                ]
        values, exponents = zip(*money, strict=True)
        return add_up(values, exponents).reaches(1.0 / alpha)


def all_zero(observations: int) -> Reference:
    """The record of a cell that did not occur in that many observations."""
    burnt = min(observations, BURN_IN)
    if burnt < BURN_IN:
        return Reference(burnt)
    counts = (observations - BURN_IN,) if observations > BURN_IN else ()
    return Reference(burnt, 0.0, *_scale(0.0), counts)


def null_of(reference: Reference, tolerance: float = TOLERANCE, least: float = 0.0) -> Null | None:
    """What the record allows, but at least `least`; None where the record is too short for a test."""
    bound = reference.upper_bound()
    if bound is None or max(bound * tolerance, least) > reference.clip * MOST_OF_CLIP:
        return None
    return Null(mean=max(bound * tolerance, least), clip=reference.clip)


def watch_of(null: Null, threshold: float) -> Hysteresis:
    """The detector of a rise above what a record allows. Nothing lies between its nulls of alarm and recovery."""
    ceiling = Ceiling(null.mean, null.clip)
    return Hysteresis(EDetector(Wager(null), threshold), ceiling, ceiling)


def relative_rule(reference: Reference, threshold: float, tolerance: float = TOLERANCE) -> Hysteresis | None:
    """The detector of a rise above `tolerance` times the reference; None where the record is too short for a test."""
    null = null_of(reference, tolerance)
    return watch_of(null, threshold) if null else None


def _scale(mean: float) -> tuple[float, int]:
    """Width and number of bins up to 3 means + 4. Widths are powers of two, so counts up to 256 are exact."""
    clip = ROOM_ABOVE_MEAN * mean + ROOM_ABOVE_ZERO
    width = 2.0**-6
    while width * BINS < clip:
        width *= 2.0
    return width, _bin(clip, width)


def _bin(x: float, width: float) -> int:
    """The bin that holds x. It is rounded up, which can only raise the bound."""
    whole = int(x / width)
    return whole if whole * width >= x else whole + 1
