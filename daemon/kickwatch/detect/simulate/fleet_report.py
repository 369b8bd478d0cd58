"""The figures of a fleet as text and as JSON: those of docs/explanation/scale.md."""

from collections.abc import Callable
from math import isfinite

import msgspec

from kickwatch.detect.simulate.fleet import (
    LONGEST_ROUNDS,
    SERIES_AT_MOST,
    Delay,
    FalsePages,
    Load,
    delay,
    false_pages,
    load,
    rollouts,
)

FLEETS = (100, 1_000, 10_000, 100_000)
INTERVALS_S = (30, 60)
RELEASES_A_YEAR = 12
RUNS, FEW_RUNS = 40, 10


class FleetFigures(msgspec.Struct, frozen=True):
    """Everything."""

    seed: int
    loads: tuple[Load, ...]
    false_pages: tuple[FalsePages, ...]
    delays: tuple[Delay, ...]


def run_fleet(quick: bool, seed: int, progress: Callable[[int, int], None] | None = None) -> FleetFigures:
    """Compute all figures; equal seeds give equal figures."""
    wanted, found = tuple(rollouts()), list[Delay]()
    for number, rollout in enumerate(wanted, 1):
        found.append(delay(rollout, FEW_RUNS if quick else RUNS, seed))
        if progress is not None:
            progress(number, len(wanted))
    loads = tuple(load(nodes, interval_s) for nodes in FLEETS for interval_s in INTERVALS_S)
    return FleetFigures(seed, loads, tuple(false_pages(nodes, RELEASES_A_YEAR) for nodes in FLEETS), tuple(found))


def fleet_json(figures: FleetFigures) -> str:
    """One object."""
    return msgspec.json.encode(figures).decode()


def fleet_text(figures: FleetFigures) -> str:
    """Three tables."""
    return "\n\n".join((_loads(figures), _false_pages(figures), _delays(figures)))


def _loads(figures: FleetFigures) -> str:
    lines = [
        f"What Prometheus receives, at most {SERIES_AT_MOST} series a node and 5 of its own; 2 bytes a sample on disk",
        "   nodes  interval      series  samples/s  GB a day",
    ]
    for one in figures.loads:
        samples, size = f"{one.samples_per_s:,.0f}", f"{one.gigabytes_a_day:,.1f}"
        lines.append(f"{one.nodes:>8,}  {one.interval_s:>6} s  {one.series:>10,}  {samples:>9}  {size:>8}")
    return "\n".join(lines)


def _false_pages(figures: FleetFigures) -> str:
    lines = [
        f"False alerts a year on healthy fleets, at most, with {RELEASES_A_YEAR} releases a year",
        "   nodes  bad release  fleet evidence  alarms of nodes",
    ]
    lines += [
        f"{one.nodes:>8,}  {one.pages_of_releases:>11.5f}  {one.pages_of_the_fleet:>14.5f}"
        f"  {one.alarms_of_nodes:>15.1f}"
        for one in figures.false_pages
    ]
    return "\n".join(lines)


def _delays(figures: FleetFigures) -> str:
    lines = [
        "Trials of each node, and hours, until a bad release is a page, and until half of its nodes alarm alone",
        "containers         broadcasts   canary  page: trials         hours  one node: trials   hours",
        "per trial  an hour  each         nodes  median   95 %  median  95 %          median  median",
    ]
    for one in figures.delays:
        rollout = one.rollout
        page, late, own = (_count(trials) for trials in (one.page_median, one.page_p95, one.node_median))
        hours, most, alone = (_hours(one, trials) for trials in (one.page_median, one.page_p95, one.node_median))
        lines.append(
            f"{rollout.containers:>9}  {rollout.containers_per_hour:>7.0f}  {rollout.broadcasts_per_container:<10}"
            f"  {rollout.nodes:>6}  {page:>6}  {late:>5}  {hours:>6}  {most:>4}  {own:>14}  {alone:>6}"
        )
    return "\n".join(lines)


def _count(trials: float) -> str:
    return f"{trials:.0f}" if isfinite(trials) else f">{LONGEST_ROUNDS}"


def _hours(one: Delay, trials: float) -> str:
    return f"{one.hours(trials):.1f}" if isfinite(trials) else ">"
