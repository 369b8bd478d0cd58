"""Confidence bounds without assumptions on the law: by betting for means, by order statistics for quantiles."""

from collections.abc import Sequence
from math import exp, lgamma, log, log1p
from typing import TypeVar

from kickwatch.detect.wager import NOTHING, Null, Wager, Wealth

Number = TypeVar("Number", int, float)

CONFIDENCE = 0.95
HALVINGS = 20


def mean_lower(samples: Sequence[float], top: float) -> float:
    """The lower 95 % bound of the mean of independent samples from [0, top], by the bets of the detectors.

    It is the least m for which the evidence against "the mean is at most m" stays below 20.
    """
    low, high = 0.0, sum(samples) / len(samples)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        wealth = _wealth_against(middle, samples, top)
        low, high = (middle, high) if wealth.reaches(1.0 / (1.0 - CONFIDENCE)) else (low, middle)
    return low


def mean_upper(samples: Sequence[float], top: float) -> float:
    """The upper 95 % bound of the mean of independent samples from [0, top]."""
    return top - mean_lower([top - sample for sample in samples], top)


def quantile(ordered: Sequence[Number], share: float) -> Number:
    """The least sample that at least `share` of the samples do not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def quantile_bounds(ordered: Sequence[int], share: float) -> tuple[int, int]:
    """Two order statistics: the quantile is between them with 95 % confidence, exactly (binomial)."""
    n, tail = len(ordered), (1.0 - CONFIDENCE) / 2.0
    below, low, high = 0.0, 0, n - 1
    for k in range(n + 1):
        mass = exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(share) + (n - k) * log1p(-share))
        below += mass  # P(at most k of n samples lie at or below the quantile)
        if below <= tail:
            low = k
        if below >= 1.0 - tail:
            high = k
            break
    return ordered[min(low, n - 1)], ordered[min(high, n - 1)]


def _wealth_against(mean: float, samples: Sequence[float], top: float) -> Wealth:
    if mean <= 0.0:
        return Wealth(0, NOTHING)
    wager = Wager(Null(mean, top))
    wealth = Wealth(0, wager.stakes)
    for sample in samples:
        wealth = wager.step(wealth, sample)
    return wealth
