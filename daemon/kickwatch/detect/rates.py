"""How one false alarm in 1000 node-years is divided among the streams.

An e-detector with threshold A gives a false alarm at most once in A observations. A stream that makes n observations a
year therefore gives at most n / A false alarms a year. Of S streams, with A = S * n * 1000, each gives 1 / (1000 * S)
and all together 1 / 1000, however they depend on each other.
"""

import msgspec

from kickwatch.errors import ConfigError

MINUTES_PER_YEAR = 525_960  # of 365.25 days
NODE_YEARS = 1000  # per false alarm


class Pace(msgspec.Struct, frozen=True):
    """The fastest that a node may observe: containers of a trial, and the shortest time from one trial to the next."""

    containers: int
    period_s: float


class ObservationRate(msgspec.Struct, frozen=True):
    """How many observations a stream makes in a year."""

    name: str
    observations_per_year: float


class Share(msgspec.Struct, frozen=True):
    """A stream's threshold and the false alarms a year that it may raise at most."""

    name: str
    observations_per_year: float
    threshold: float
    false_alarms_per_year: float


def observations_per_year(interval_s: float, per_trial: int = 1) -> float:
    """Observations a year when a trial begins every `interval_s` seconds and makes `per_trial` of them."""
    if not interval_s > 0.0 or per_trial < 1:
        raise ConfigError(f"{per_trial} observations every {interval_s} s is no rate", "give positive numbers")
    return MINUTES_PER_YEAR * 60.0 / interval_s * per_trial


def threshold(streams: int, per_year: float, node_years: float = NODE_YEARS) -> float:
    """The threshold of one of `streams` streams, each with `per_year` observations.

    One stream with an observation a minute: 525,960,000.
    """
    if streams < 1 or not per_year > 0.0 or not node_years > 0.0:
        raise ConfigError(f"no threshold for {streams} streams of {per_year} observations a year", "give more than 0")
    return max(1.0, streams * per_year * node_years)


def split(streams: tuple[ObservationRate, ...], node_years: float = NODE_YEARS) -> tuple[Share, ...]:
    """Every stream's share of the one false alarm in `node_years`."""
    shares = []
    for stream in streams:
        height = threshold(len(streams), stream.observations_per_year, node_years)
        per_year = stream.observations_per_year / height
        shares.append(Share(stream.name, stream.observations_per_year, height, per_year))
    return tuple(shares)
