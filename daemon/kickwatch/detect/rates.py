"""How the one false alarm in 1000 node-years is divided among the streams.

An e-detector with threshold A gives a false alarm at most once in A observations. Of S streams, one that makes n
observations a year may take n / A of a false alarm a year; with A = S * n * 1000 each takes 1 / (1000 * S), and all
together 1 / 1000, however they depend on each other.
"""

import msgspec

from kickwatch.errors import ConfigError

MINUTES_PER_YEAR = 525_960  # of 365.25 days
NODE_YEARS = 1000  # per false alarm


class Allowance(msgspec.Struct, frozen=True):
    """What a healthy kernel may do: a mean per observation, and the bound at which an observation is clipped."""

    mean: float
    clip: float


# Per container, except for the canary's counters, which are per memory cgroup (CAL - TLB over memcgs).
CREATION_PATH = Allowance(0.05, 4.0)
SIGNATURE = Allowance(0.001, 64.0)  # clipped high, yet one observation alone never alarms
CANARY = Allowance(0.05, 4.0)  # broadcasts per batch; where counted, CAL - TLB per memory cgroup and other CPU
CONTENTION = Allowance(0.05, 4.0)  # waits for slab_mutex caused under the creation path
PERCPU_BALANCE = Allowance(0.5, 4.0)  # pcpu_balance_workfn: 2820 flushes while 10000 memcgs were removed, so 0.28 each
BPF = Allowance(1.0, 8.0)  # broadcasts for BPF programs, in units of what is allowed here (`classes.bpf_allowance`)
SWEEPS = Allowance(0.25, 4.0)  # single requests of the creation path, in sweeps of all other CPUs
DESTROY = Allowance(0.5, 4.0)  # what removing a container broadcasts: ordinary on old kernels, none on new ones


class Pace(msgspec.Struct, frozen=True):
    """How often a node observes at most: containers of a trial, and the shortest time from one trial to the next."""

    containers: int
    period_s: float


class Stream(msgspec.Struct, frozen=True):
    """A stream by name, with the observations it makes in a year."""

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
        raise ConfigError(f"{per_trial} observations every {interval_s} s are no rate", "give positive numbers")
    return MINUTES_PER_YEAR * 60.0 / interval_s * per_trial


def threshold(streams: int, per_year: float, node_years: float = NODE_YEARS) -> float:
    """The threshold of one of `streams` streams with `per_year` observations: 525,960,000 for one a minute."""
    if streams < 1 or not per_year > 0.0 or not node_years > 0.0:
        raise ConfigError(f"no threshold for {streams} streams of {per_year} observations a year", "give more than 0")
    return max(1.0, streams * per_year * node_years)


def split(streams: tuple[Stream, ...], node_years: float = NODE_YEARS) -> tuple[Share, ...]:
    """Every stream's share of the one false alarm in `node_years`."""
    shares = []
    for stream in streams:
        height = threshold(len(streams), stream.observations_per_year, node_years)
        per_year = stream.observations_per_year / height
        shares.append(Share(stream.name, stream.observations_per_year, height, per_year))
    return tuple(shares)
