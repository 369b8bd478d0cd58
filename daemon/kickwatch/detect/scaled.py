"""Numbers too large or too small for a double: a mantissa in [1/2, 1) and a power of two.

`frexp` and `ldexp` only move the binary point. Nothing here depends on the logarithm or the exponential of a C library:
they differ in the last bit from machine to machine, and a replay must not.
"""

from collections.abc import Iterable
from math import frexp, ldexp

import msgspec

# Doubles end at 2**1024: between 2**-512 and 2**512 there is room for one more factor of any size used here.
ROOM_BITS = 512
HIGHEST = 2.0**ROOM_BITS
LOWEST = 2.0**-ROOM_BITS


class Scaled(msgspec.Struct, frozen=True):
    """A non-negative number, `mantissa * 2**exponent`; the mantissa is 0 or in [1/2, 1), the exponent of 0 is 0."""

    mantissa: float
    exponent: int

    @property
    def rank(self) -> tuple[bool, int, float]:
        """A key for ordering by value."""
        return (self.mantissa > 0.0, self.exponent, self.mantissa)

    def reaches(self, threshold: float) -> bool:
        """Whether the number is at least `threshold`, which is positive and finite."""
        return self.rank >= Scaled(*frexp(threshold)).rank

    def capped(self, cap: float) -> float:
        """The number as a double, or `cap` if that is smaller. Numbers below 2**-1074 become 0."""
        return cap if self.reaches(cap) else ldexp(self.mantissa, self.exponent)

    def mean_with(self, other: "Scaled") -> "Scaled":
        """The mean of the two. The mean of two e-values is an e-value, however they depend on each other."""
        return add_up((self.mantissa, other.mantissa), (self.exponent - 1, other.exponent - 1))

    def __str__(self) -> str:
        """As an operator reads it: `3.1e9`, `0.42`, `over 1e300`."""
        if self.reaches(1e300):
            return "over 1e300"
        if self.mantissa > 0.0 and not self.reaches(1e-300):
            return "below 1e-300"
        value = ldexp(self.mantissa, self.exponent)
        if 0.01 <= value < 1000.0 or value == 0.0:
            return f"{value:.2g}" if value < 100.0 else f"{value:.0f}"
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits}e{int(power)}"


def add_up(values: Iterable[float], exponents: Iterable[int]) -> Scaled:
    """The sum of `value * 2**exponent`, added from first to last."""
    terms = [(*frexp(value), exponent) for value, exponent in zip(values, exponents, strict=True)]
    top = max((bits + exponent for mantissa, bits, exponent in terms if mantissa > 0.0), default=0)
    total = 0.0
    for mantissa, bits, exponent in terms:
        if mantissa > 0.0:
            total += ldexp(mantissa, bits + exponent - top)
    mantissa, bits = frexp(total)
    return Scaled(mantissa, bits + top if mantissa > 0.0 else 0)


def stake_and_multiply(value: float, exponent: int, stake: float, factor: float) -> tuple[float, int]:
    """`(value * 2**exponent + stake) * factor`, as a value and an exponent, which is 0 whenever a double has room."""
    if stake > 0.0:
        if exponent < 0:  # the stake is far larger: only bits below its last one are lost
            value, exponent = ldexp(value, exponent), 0
        value += ldexp(stake, -exponent)
    mantissa, bits = frexp(value * factor)
    bits += exponent
    if mantissa == 0.0:
        return 0.0, 0
    if -ROOM_BITS < bits < ROOM_BITS:
        return ldexp(mantissa, bits), 0
    return mantissa, bits


def power(factor: float, count: int) -> Scaled:
    """`factor ** count` for count >= 0, by repeated squaring."""
    (mantissa, exponent), (square, shift) = (0.5, 1), frexp(factor)
    while count:
        if count & 1:
            mantissa, bits = frexp(mantissa * square)
            exponent += shift + bits
        square, bits = frexp(square * square)
        shift += shift + bits
        count >>= 1
    return Scaled(mantissa, exponent if mantissa > 0.0 else 0)
