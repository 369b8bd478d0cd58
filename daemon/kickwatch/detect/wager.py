"""Betting against a bounded mean: the one wager under every detector of kickwatch.

The null says: each observation x, at least 0 and clipped at b, has a mean of at most m given everything before it. A
gambler who stakes the fraction c of his money against it multiplies his money by 1 - c + c * x / m. Under the null this
factor has a mean of at most 1: the money is a supermartingale, and money that grew a million times is evidence of a
million (Waudby-Smith and Ramdas, arXiv 2010.09686). Nine gamblers with fixed fractions share one unit of money, since
the effect is not known beforehand. The mixture takes a container or two more than a gambler who knows the effect.

Other nulls take the same form: "at least p" is "b - x has a mean of at most b - p", and a fair coin s of +1 and -1 is
"(1 + s) / 2 has a mean of at most 1/2".

All is computed with + - x / and powers of two in a fixed order: a replay is equal to the last bit on any CPU.
"""

from collections.abc import Iterable
from math import inf
from typing import TypeAlias

import msgspec

from kickwatch.detect.scaled import HIGHEST, LOWEST, Scaled, add_up, stake_and_multiply
from kickwatch.errors import KickwatchError

Nine: TypeAlias = tuple[float, float, float, float, float, float, float, float, float]

NINE = 9
NOTHING: Nine = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
UNSCALED = (0,) * NINE
PART = 64  # fractions are counted in 64ths and shares in 256ths: exact in binary
SHARE = 256
# Rounding adds less than 2**-50 to a factor's mean; this takes at least 2**-46 from it (the smallest fraction is 1/64).
ROUNDING_GUARD = 1.0 - 2.0**-40
CACHED_FACTORS = 256
LARGEST_FACTOR = 2.0**400  # a value below 2**512 survives one of these


class StaleStateError(KickwatchError):
    """Saved evidence belongs to another null or other bets."""


class Bets(msgspec.Struct, frozen=True):
    """The fraction of its money that each of nine bets stakes, in 64ths, and its share of the unit, in 256ths."""

    parts: tuple[int, ...]
    shares: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError unless there are nine of each, the fractions are in (0, 1] and the shares sum to 1."""
        if len(self.parts) != NINE or len(self.shares) != NINE:
            raise ValueError("nine bets are needed, each with its share")
        if min(self.parts) < 1 or max(self.parts) > PART:
            raise ValueError(f"a bet is 1 to {PART} parts of {PART}; they are {self.parts}")
        if min(self.shares) < 0 or sum(self.shares) != SHARE:
            raise ValueError(f"shares must add up to {SHARE}; they are {self.shares}")

    @property
    def shape(self) -> str:
        """Both as a word, for the key under which evidence is saved."""
        return ",".join(f"{part}:{share}" for part, share in zip(self.parts, self.shares, strict=True))


# Chosen by measuring delays from 0.1 to 32 broadcasts per container (docs/detection.md): for no effect in between does
# it take two containers more than the best single bet does.
SPREAD = Bets(parts=(61, 51, 42, 32, 22, 16, 8, 4, 2), shares=(48, 32, 32, 48, 32, 16, 16, 16, 16))


class Null(msgspec.Struct, frozen=True):
    """The mean of min(x, clip) given the past is at most `mean`; both in the unit of the observation."""

    mean: float
    clip: float

    def __post_init__(self) -> None:
        """Raise ValueError unless 0 < mean < clip, with a ratio for which doubles have room."""
        if not 0.0 < self.mean < self.clip or self.clip / self.mean > LARGEST_FACTOR:
            raise ValueError(f"a null needs 0 < mean < clip; mean is {self.mean}, clip is {self.clip}")


class Wealth(msgspec.Struct, frozen=True):
    """The money of the nine gamblers after `steps` observations: `values[i] * 2**exponents[i]`."""

    steps: int
    values: Nine
    exponents: tuple[int, ...] = ()  # empty: all zero, the ordinary case

    def total(self) -> Scaled:
        """All their money together."""
        return add_up(self.values, self.exponents or UNSCALED)

    def reaches(self, threshold: float) -> bool:
        """Whether the total is at least `threshold`."""
        if self.exponents:
            return self.total().reaches(threshold)
        a, b, c, d, e, f, g, h, i = self.values
        return a + b + c + d + e + f + g + h + i >= threshold


class SavedWealth(msgspec.Struct, frozen=True):
    """Wealth as it is written to disk: hexadecimal floats, which every reader restores to the last bit."""

    key: str
    steps: int
    values: tuple[str, ...]
    exponents: tuple[int, ...] = ()


class Wager:
    """A null and the nine bets against it; holds the factor each bet is multiplied by for an observation."""

    def __init__(self, null: Null, bets: Bets = SPREAD) -> None:
        """Prepare the factors `keep + slope * x` of every bet."""
        self.null = null
        self.bets = bets
        self.stakes = nine(share / SHARE for share in bets.shares)
        self._keeps = nine((PART - part) / PART for part in bets.parts)
        self._slopes = nine(part / PART / null.mean * ROUNDING_GUARD for part in bets.parts)
        self._cache: dict[float, Nine] = {}

    @property
    def key(self) -> str:
        """The null and the bets, exactly: saved evidence continues only under the same key."""
        return f"{float(self.null.mean).hex()} {float(self.null.clip).hex()} {self.bets.shape}"

    def factors(self, x: float) -> Nine:
        """The factor of each bet when `x` is observed. Raises ValueError for a negative x or NaN."""
        known = self._cache.get(x)
        if known is not None:
            return known
        found = self._computed(x)
        if len(self._cache) < CACHED_FACTORS:
            self._cache[x] = found
        return found

    def _computed(self, x: float) -> Nine:
        if not x >= 0.0:
            raise ValueError(f"an observation is at least 0; it is {x}")
        clipped = min(float(x), self.null.clip)
        return nine(keep + slope * clipped for keep, slope in zip(self._keeps, self._slopes, strict=True))

    def step(self, wealth: Wealth, x: float, stakes: Nine = NOTHING) -> Wealth:
        """Add `stakes` to the gamblers' money, then let each bet on `x`."""
        factors = self.factors(x)
        if wealth.exponents:
            return step_scaled(wealth, factors, stakes)
        values, total, _ = play(wealth.values, stakes, (factors,), inf)
        if total >= HIGHEST or (stakes is NOTHING and any(0.0 < value < LOWEST for value in values)):
            return step_scaled(wealth, factors, stakes)
        return Wealth(wealth.steps + 1, values)

    def step_trial(self, wealth: Wealth, xs: tuple[float, ...], stakes: Nine = NOTHING) -> Wealth:
        """Add `stakes` to the gamblers' money, then let each bet on the observations of one trial, at least one."""
        rows = tuple(map(self.factors, xs))
        if not wealth.exponents:
            values, total = play_trial(wealth.values, stakes, rows, HIGHEST)
            if total < HIGHEST and min(values) >= LOWEST:
                return Wealth(wealth.steps + 1, values)
        after = wealth
        for index, row in enumerate(rows):
            after = step_scaled(after, row, NOTHING if index else stakes)
        return Wealth(wealth.steps + 1, after.values, after.exponents)

    def save(self, wealth: Wealth) -> SavedWealth:
        """The wealth in a form that JSON keeps to the last bit."""
        return SavedWealth(self.key, wealth.steps, tuple(value.hex() for value in wealth.values), wealth.exponents)

    def restore(self, saved: SavedWealth) -> Wealth:
        """The inverse of `save`. Raises StaleStateError if it was saved under another null or other bets."""
        if saved.key != self.key:
            raise StaleStateError(f"saved evidence is for the wager {saved.key!r}, not {self.key!r}", "start again")
        return Wealth(saved.steps, nine(float.fromhex(value) for value in saved.values), saved.exponents)


def play(values: Nine, stakes: Nine, rows: Iterable[Nine], limit: float) -> tuple[Nine, float, int]:
    """Add the stakes and multiply by each row of factors, until the sum reaches `limit` or the rows end.

    Returns the values, their sum and how many rows were used. It is written out nine times because a loop takes three
    times as long, and because the order of the additions is part of the result.
    """
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = values
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = stakes
    total, used = 0.0, 0
    for f0, f1, f2, f3, f4, f5, f6, f7, f8 in rows:
        v0 = (v0 + s0) * f0
        v1 = (v1 + s1) * f1
        v2 = (v2 + s2) * f2
        v3 = (v3 + s3) * f3
        v4 = (v4 + s4) * f4
        v5 = (v5 + s5) * f5
        v6 = (v6 + s6) * f6
        v7 = (v7 + s7) * f7
        v8 = (v8 + s8) * f8
        used += 1
        total = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7 + v8
        if total >= limit:
            break
    return (v0, v1, v2, v3, v4, v5, v6, v7, v8), total, used


def play_trial(values: Nine, stakes: Nine, rows: tuple[Nine, ...], limit: float) -> tuple[Nine, float]:
    """Add the stakes once and multiply by each row of factors, until the sum reaches `limit` or the rows end."""
    values, total, _ = play(values, stakes, rows[:1], limit)
    if total < limit and len(rows) > 1:
        values, total, _ = play(values, NOTHING, rows[1:], limit)
    return values, total


def step_scaled(wealth: Wealth, factors: Nine, stakes: Nine) -> Wealth:
    """One step of wealth that is, or may become, too large or too small for doubles."""
    rows = zip(wealth.values, wealth.exponents or UNSCALED, stakes, factors, strict=True)
    moved = [stake_and_multiply(value, exponent, stake, factor) for value, exponent, stake, factor in rows]
    exponents = tuple(exponent for _, exponent in moved)
    return Wealth(wealth.steps + 1, nine(value for value, _ in moved), exponents if any(exponents) else ())


def nine(values: Iterable[float]) -> Nine:
    """The nine values as a tuple of that length."""
    a, b, c, d, e, f, g, h, i = values
    return a, b, c, d, e, f, g, h, i
