"""How observations are drawn: by inversion from tables, with one random number for each observation."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from math import exp
from random import Random

Law = tuple[tuple[float, ...], tuple[float, ...]]  # values, and their cumulative probabilities (the last is above 1)

Source = Callable[[Random], Iterator[float]]  # makes the observations of one run
DAY = 1440  # observations: one a minute
TAIL = 1e-13
SAFE_LAST = 2.0  # the last cumulative probability: no rounding leaves a draw without a value


def from_masses(masses: dict[float, float]) -> Law:
    """A law on a few values; masses that fall short of 1 go to the last value."""
    values, cumulative, sum_ = [], [], 0.0
    for value, mass in masses.items():
        sum_ += mass
        values.append(value)
        cumulative.append(sum_)
    cumulative[-1] = SAFE_LAST
    return tuple(values), tuple(cumulative)


def poisson_masses(mean: float) -> dict[float, float]:
    """P(X = k) for k = 0, 1, ... until the rest is below 1e-13; for means up to 100."""
    masses, mass, k, left = {}, exp(-mean), 0, 1.0
    while left > TAIL and k < 1000:
        masses[float(k)] = mass
        left -= mass
        k += 1
        mass *= mean / k
    return masses


def poisson(mean: float) -> Law:
    """The Poisson law."""
    return from_masses(poisson_masses(mean))


def two_point(high: float, mean: float) -> Law:
    """0 or `high`, with the given mean: of all laws on [0, high] the most bursty."""
    return from_masses({0.0: 1.0 - mean / high, high: mean / high})


def draw(law: Law, random: Random) -> float:
    """One observation."""
    values, cumulative = law
    return values[bisect_left(cumulative, random.random())]


def draws(law: Law, random: Random) -> Iterator[float]:
    """Independent observations, without end."""
    values, cumulative = law
    uniform = random.random
    while True:
        yield values[bisect_left(cumulative, uniform())]
