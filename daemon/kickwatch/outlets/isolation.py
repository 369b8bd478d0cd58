"""Requests that reach isolated CPUs with containers: by function, by CPU, and as the fields of an alert. Pure.

A figure is None where it was not counted: no CPU is isolated, no probe attributes requests, or the record is older.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from kickwatch.attribution.reasons import explain
from kickwatch.attribution.stacks import top_of_stack
from kickwatch.detect.figures import attributed
from kickwatch.model import Cell, Trial
from kickwatch.outlets.broadcast import bpftrace_line, identity
from kickwatch.outlets.excess import Excess, containers_of, excesses, per_cpu_above_quiet

MIN_HIT = 0.05  # requests per container above the quiet window: fewer are chance
MOST_FUNCTIONS = 12
_DIGITS = 3


def isolated_known(trial: Trial) -> bool:
    """True if CPUs are isolated and the probe counted the requests that reached them."""
    counts = all(cell.isolated is not None for cell in (*trial.churn.cells, *trial.quiet.cells))
    return bool(trial.isolated_cpus) and attributed(trial) and counts


def isolated_total(cells: Iterable[Cell]) -> int:
    """Requests to isolated CPUs; cells without that figure have none."""
    return sum(cell.isolated or 0 for cell in cells)


def isolated_excesses(trials: Sequence[Trial]) -> list[Excess]:
    """The cells by requests to isolated CPUs above quiet, most first; those above zero only."""
    found = excesses([trial for trial in trials if isolated_known(trial)], lambda cell: cell.isolated or 0)
    return [one for one in found if one.above_quiet > 0]


def isolated_per_container(trials: Sequence[Trial]) -> float | None:
    """Requests to isolated CPUs per container, above quiet."""
    known = [trial for trial in trials if isolated_known(trial)]
    containers = containers_of(known)
    if not containers:
        return None
    found = excesses(known, lambda cell: cell.isolated or 0)
    return round(sum(one.above_quiet for one in found) / containers, _DIGITS)


def isolated_cpus_hit(trials: Sequence[Trial]) -> list[int] | None:
    """The isolated CPUs that requests reach with containers. None if no trial counted requests by CPU."""
    isolated = set(trials[-1].isolated_cpus)
    above: dict[int, float] = {}
    containers = 0
    for trial in trials:
        per_cpu = per_cpu_above_quiet(trial) if attributed(trial) else None
        if per_cpu is not None and set(trial.isolated_cpus) == isolated:
            containers += containers_of([trial])
            for cpu, requests in enumerate(per_cpu):
                above[cpu] = above.get(cpu, 0.0) + requests
    if not isolated or not containers:
        return None
    return [cpu for cpu in sorted(isolated) if above.get(cpu, 0.0) >= MIN_HIT * containers]


def hit_field(trials: Sequence[Trial]) -> dict[str, Any]:
    """The key that alerts of other conditions gain where CPUs are isolated."""
    return {"isolated_cpus_hit": isolated_cpus_hit(trials)} if trials[-1].isolated_cpus else {}


def isolation_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.isolation_broken`. `trials`: the newest ones."""
    last = trials[-1]
    found = isolated_excesses(trials)
    containers = containers_of([trial for trial in trials if isolated_known(trial)])
    return identity(trials) | {
        "headline": _headline(trials, found, containers),
        "meaning": explain(found[0].cell.func) if found else "no probe tells which function the CPUs run.",
        "cpus_online": last.node.cpus_online,
        "containers": containers_of(trials),
        "isolated_cpus": list(last.isolated_cpus),
        "isolated_cpus_hit": isolated_cpus_hit(trials),
        "requests_per_container": isolated_per_container(trials),
        "functions": [_function(one, containers) for one in found[:MOST_FUNCTIONS]] if containers else None,
        "confirm": confirm_line(last, found[0].cell if found else None),
    }


def _headline(trials: Sequence[Trial], found: Sequence[Excess], containers: int) -> str:
    cpus = isolated_name(trials[-1].isolated_cpus)
    if not found or not containers:
        return f"requests to {cpus} come with containers"
    cell, each = found[0].cell, found[0].above_quiet / containers
    asked_by = top_of_stack(cell.stack)
    by = f", asked for by {asked_by}" if asked_by else ""
    total = isolated_per_container(trials)
    return f"{total:.3g} requests per container reach {cpus}: most are {cell.reason} ({each:.3g}){by}"


def _function(one: Excess, containers: int) -> dict[str, Any]:
    cell = one.cell
    return {
        "reason": cell.reason,
        "func": cell.func,
        "origin": cell.origin.value,
        "path": cell.path.value,
        "asked_by": top_of_stack(cell.stack),
        "cpus": list(cell.isolated_cpus),
        "requests_per_container": round(one.above_quiet / containers, _DIGITS),
    }


def confirm_line(trial: Trial, worst: Cell | None) -> str:
    """A command that shows who sends requests to the isolated CPUs.

    A kprobe does not see the target of each request: there it shows all requests of the worst cell.
    """
    if trial.observers.ipis != "csd":
        return bpftrace_line(worst, trial.observers.ipis)
    only = " || ".join(_condition(first, last) for first, last in ranges(trial.isolated_cpus))
    counts = "{ @[args->cpu, ksym(args->func), kstack(12)] = count(); }"
    return f"bpftrace -e 'tracepoint:csd:csd_queue_cpu /{only}/ {counts} interval:s:60 {{ exit(); }}'"


def _condition(first: int, last: int) -> str:
    return f"args->cpu == {first}" if first == last else f"(args->cpu >= {first} && args->cpu <= {last})"


def ranges(cpus: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of CPUs, as (first, last): 4, 5, 7 is (4, 5), (7, 7)."""
    found: list[tuple[int, int]] = []
    for cpu in sorted(set(cpus)):
        if found and found[-1][1] == cpu - 1:
            found[-1] = (found[-1][0], cpu)
        else:
            found.append((cpu, cpu))
    return found


def isolated_name(cpus: Sequence[int]) -> str:
    """`isolated CPUs 4-5,7`, or `isolated CPU 4`."""
    return f"isolated CPU{'s' if len(cpus) > 1 else ''} {cpu_list(cpus)}"


def cpu_list(cpus: Iterable[int]) -> str:
    """The kernel's list format, `4-5,7`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges(cpus))
