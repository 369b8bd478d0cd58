"""Effect sizes with intervals, from the standard library alone. Pure and seeded: the same histories, the same figures.

Means: a block bootstrap (B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979; blocks as
of H. Kuensch, Ann. Statist. 17, 1989). A block is a span of consecutive trials, so that trials which resemble their
neighbours do not make an interval too narrow. Shares: exact (C. Clopper and E. Pearson, Biometrika 26, 1934).
"""

from collections.abc import Callable, Sequence
from math import exp, lgamma, log, log1p
from random import Random
from typing import NamedTuple

RESAMPLES = 2000
LEAST_BLOCKS = 10
SEED = 2017
_HALVINGS = 60


class Block(NamedTuple):
    """A sum over consecutive trials, and what it is divided by (containers)."""

    amount: float
    weight: float


class Interval(NamedTuple):
    """A figure with its interval of 95 %; the ends are None where there are too few blocks."""

    value: float | None
    low: float | None
    high: float | None


class EffectSize(NamedTuple):
    """B against A. `superiority`: the chance that a block of B has more than one of A, ties counted half."""

    difference: Interval
    ratio: Interval
    superiority: float | None


def mean(blocks: Sequence[Block]) -> float | None:
    """The sum of the amounts over the sum of the weights; None without weight."""
    weight = sum(block.weight for block in blocks)
    return sum(block.amount for block in blocks) / weight if weight else None


def effect(one: Sequence[Block], other: Sequence[Block]) -> EffectSize:
    """How much `other` has more than `one`."""
    one, other = ([block for block in blocks if block.weight] for blocks in (one, other))
    before, after = mean(one), mean(other)
    if before is None or after is None:
        return EffectSize(Interval(None, None, None), Interval(None, None, None), None)
    ratio = after / before if before > 0.0 else None
    if min(len(one), len(other)) < LEAST_BLOCKS:
        known = superiority(one, other)
        return EffectSize(Interval(after - before, None, None), Interval(ratio, None, None), known)
    drawn = _resampled(one, other)
    differences = sorted(b - a for a, b in drawn)
    ratios = sorted(b / a for a, b in drawn if a > 0.0)
    spread = Interval(ratio, *_ends(ratios)) if ratio is not None and len(ratios) == len(drawn) else None
    return EffectSize(
        Interval(after - before, *_ends(differences)),
        spread or Interval(ratio, None, None),
        superiority(one, other),
    )


def bootstrapped(blocks: Sequence[Block]) -> Interval:
    """The mean with its interval."""
    blocks = [block for block in blocks if block.weight]
    if len(blocks) < LEAST_BLOCKS:
        return Interval(mean(blocks), None, None)
    means = sorted(a for a, _ in _resampled(blocks, blocks))
    return Interval(mean(blocks), *_ends(means))


def superiority(one: Sequence[Block], other: Sequence[Block]) -> float | None:
    """P(B > A) + P(B = A) / 2 over pairs of blocks; 0.5 where nothing differs."""
    before, after = ([block.amount / block.weight for block in blocks if block.weight] for blocks in (one, other))
    if not before or not after:
        return None
    score = sum((b > a) + 0.5 * (b == a) for a in before for b in after)
    return score / (len(before) * len(after))


def exact_share(hits: int, of: int) -> Interval:
    """The share of `hits` with its exact interval."""
    if not of:
        return Interval(None, None, None)
    low = 0.0 if not hits else _solved(lambda p: 1.0 - _at_most(hits - 1, of, p), 0.025)
    high = 1.0 if hits == of else _solved(lambda p: -_at_most(hits, of, p), -0.025)
    return Interval(hits / of, low, high)


def _solved(rising: Callable[[float], float], wanted: float) -> float:
    """Where a rising function of (0, 1) reaches `wanted`."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def _at_most(hits: int, of: int, p: float) -> float:
    """P(X <= hits) of a binomial distribution, summed from its largest term down to nothing."""
    if p <= 0.0 or hits >= of:
        return 1.0
    if p >= 1.0 or hits < 0:
        return 0.0
    if hits > of * p:  # the shorter tail
        return 1.0 - _at_most(of - hits - 1, of, 1.0 - p)
    constant = lgamma(of + 1) - lgamma(hits + 1) - lgamma(of - hits + 1)
    term = exp(constant + hits * log(p) + (of - hits) * log1p(-p))
    total, odds = 0.0, (1.0 - p) / p
    for k in range(hits, -1, -1):
        total += term
        term *= k / (of - k + 1) * odds
        if term < total * 1e-16:
            break
    return min(1.0, total)


def _resampled(one: Sequence[Block], other: Sequence[Block]) -> list[tuple[float, float]]:
    """Means of both sides, again and again from as many blocks drawn with replacement."""
    random = Random(SEED)  # noqa: S311 -- a resampling, no secret
    return [(_drawn_mean(one, random), _drawn_mean(other, random)) for _ in range(RESAMPLES)]


def _drawn_mean(blocks: Sequence[Block], random: Random) -> float:
    drawn = random.choices(blocks, k=len(blocks))
    return sum([block[0] for block in drawn]) / sum([block[1] for block in drawn])


def _ends(ordered: Sequence[float]) -> tuple[float, float]:
    """The percentiles 2.5 and 97.5."""
    cut = round(len(ordered) * 0.025)
    return ordered[cut], ordered[-1 - cut]
