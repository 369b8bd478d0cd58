"""This node against its own record: does a cell cost more per container than under the previous kernel release?

Under the old stratum a `Reference` collects the cell's observations in a histogram. From it comes an upper confidence
bound of their mean, by the same bets as everywhere (Waudby-Smith and Ramdas, arXiv 2010.09686, section 4), so a short
record gives a high bound and a slow test, not a false alarm. Under the new stratum an e-detector then watches the null
"the mean is at most `TOLERANCE` times that bound".

Assumes that each new observation's mean, given the past, is within TOLERANCE of the old ones' average. With probability
`REFERENCE_ALPHA` for each stratum left, the bound itself is too low and the null means nothing.
"""

import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.eprocess import Null, Wager
from kickwatch.detect.recovery import Ceiling, Hysteresis
from kickwatch.detect.scaled import add_up, power, stake_and_multiply

TOLERANCE = 1.25  # what an update, another engine version or the time of day may add unremarked
REFERENCE_ALPHA = 1e-7  # 50 cells and 20 updates a year take 1e-4 of a false alarm a year
BURN_IN = 32  # observations that choose the clip, and nothing else
BINS = 256
ROOM_ABOVE_MEAN = 3.0  # the clip lies at 3 means + 4: a doubling fits below it
ROOM_ABOVE_ZERO = 4.0
MOST_OF_CLIP = 0.75  # a null nearer to the clip than this could hardly be contradicted


class Reference(msgspec.Struct, frozen=True):
    """A cell's record under one stratum. Bin k holds observations in ((k - 1) * width, k * width]."""

    burnt: int = 0
    burnt_sum: float = 0.0
    width: float = 0.0  # 0 until the burn-in is over
    bins: int = 0
    counts: tuple[int, ...] = ()  # of bins 0, 1, 2, ...: no longer than needed

    @property
    def observations(self) -> int:
        """How many observations the bound rests on."""
        return sum(self.counts)

    @property
    def clip(self) -> float:
        """Where the old and the new observations are clipped."""
        return self.bins * self.width

    def with_observation(self, x: float) -> "Reference":
        """The record after one more observation. Raises ValueError for a negative x or NaN."""
        if not x >= 0.0:
            raise ValueError(f"an observation is non-negative, not {x}")
        if self.burnt < BURN_IN:
            burnt, burnt_sum = self.burnt + 1, self.burnt_sum + x
            return Reference(burnt, burnt_sum, *(_scale(burnt_sum / burnt) if burnt == BURN_IN else (0.0, 0)))
        bin_ = _bin(x, self.width) if x < self.clip else self.bins
        counts = list(self.counts) + [0] * (bin_ + 1 - len(self.counts))
        counts[bin_] += 1
        return Reference(self.burnt, self.burnt_sum, self.width, self.bins, tuple(counts))

    def upper_bound(self, alpha: float = REFERENCE_ALPHA) -> float | None:
        """A bound that the mean exceeds with probability `alpha` at most; None if the record is too short for one."""
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


def relative_rule(reference: Reference, threshold: float, tolerance: float = TOLERANCE) -> Hysteresis | None:
    """The detector of a rise above `tolerance` times the reference; None where the record leaves it no power."""
    bound = reference.upper_bound()
    if bound is None or bound * tolerance > reference.clip * MOST_OF_CLIP:
        return None
    null = Null(mean=bound * tolerance, clip=reference.clip)
    ceiling = Ceiling(null.mean, null.clip)  # alarm and recovery leave nothing between them
    return Hysteresis(EDetector(Wager(null), threshold), ceiling, ceiling)


def _scale(mean: float) -> tuple[float, int]:
    """Width and number of bins up to 3 means + 4. Widths are powers of two, so counts up to 256 are held exactly."""
    clip = ROOM_ABOVE_MEAN * mean + ROOM_ABOVE_ZERO
    width = 2.0**-6
    while width * BINS < clip:
        width *= 2.0
    return width, _bin(clip, width)


def _bin(x: float, width: float) -> int:
    """The bin that holds x: rounding up can only raise the bound."""
    whole = int(x / width)
    return whole if whole * width >= x else whole + 1
