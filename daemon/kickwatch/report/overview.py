"""The report on a history as one JSON object (schema 1): the contract of `kickwatch report --json`. Pure.

None: not known. Times are seconds since 1970, durations as the key says.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from kickwatch.detect.bill import share
from kickwatch.detect.figures import milliseconds
from kickwatch.model import CREATION_ORIGINS, Path
from kickwatch.outlets.bill import Percentiles
from kickwatch.report.bins import Bin
from kickwatch.report.collect import Collector
from kickwatch.report.passive_totals import PassiveTotals
from kickwatch.report.stack_tree import stack_tree
from kickwatch.report.tally import CLASSES, NOT_KNOWN, SANDBOX, STEPS, CellTotals, Tally, WaiterTotals, added

SCHEMA = 1
MOST_WAITERS = 50
MOST_CPU_ITEMS = 64
MOST_KERNEL_ROWS = 8
MOST_BILL = 100
MOST_KERNEL_FRAMES = 16
MOST_KERNEL_STACKS = 3
_PERCENTS = (5, 25, 50, 75, 95, 99)
_CREATION = {origin.value for origin in CREATION_ORIGINS}


def overview(seen: Collector, replayed: dict[str, Any], pauses: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Every figure of the report. `replayed`: the result of the replay that the outcomes come from.

    `pauses`: the guard's, from a log; None where no log was read.
    """
    whole = merged(seen.tallies.values())
    sent = merged([*seen.tallies.values(), *(one.seen for one in seen.passive.values())])
    outcome = seen.outcome
    cells = bill(whole)
    per_item = max(1, -(-len(whole.per_cpu) // MOST_CPU_ITEMS))
    return {
        "schema": SCHEMA,
        "verdict": outcome.verdict.value if outcome else "unknown",
        "reasons": list(outcome.reasons) if outcome else ["no trials"],
        "findings": list(outcome.findings) if outcome else [],
        "more_containers": outcome.more_containers if outcome else None,
        "replay": replayed,
        "first_unix_s": seen.bins.bins[0].first_unix_s if seen.bins.bins else None,
        "last_unix_s": max(one.last_unix_s for one in seen.bins.bins) if seen.bins.bins else None,
        "total": tally_figures(whole),
        "kernels": [_kernel(kernel, tally) for kernel, tally in seen.tallies.items()],
        "passive": [_passive(kernel, totals) for kernel, totals in seen.passive.items()],
        "nodes": _nodes(seen),
        "spans": {name: [asdict(span) for span in spans.spans] for name, spans in seen.spans.items()},
        "spans_left_out": {name: spans.left_out for name, spans in seen.spans.items()},
        "gaps": seen.gaps,
        "pauses": pauses,
        "changes": seen.changes,
        "changes_left_out": seen.changes_left_out,
        "evidence": _evidence(seen),
        "bins": [bin_figures(one, per_item) for one in seen.bins.bins],
        "cpus_per_item": per_item,
        "bin_trials": seen.bins.width,
        "bill": None if cells is None else cells[:MOST_BILL],
        "bill_left_out": max(0, len(cells or ()) - MOST_BILL),
        "waits": waits(whole),
        "latency_ms": latencies(whole),
        "pairs": {name: dict(score) for name, score in whole.pairs.items() if score},
        "per_cpu": per_cpu(whole),
        "stacks": {
            "requests": stack_tree(_by_stack(sent, "requests")),
            "broadcasts": stack_tree(_by_stack(sent, "broadcasts")),
        },
    }


def _kernel(name: str, tally: Tally) -> dict[str, Any]:
    """One release: its figures, and the first rows of its bill and its waits."""
    cells, waited = bill(tally), waits(tally)
    return {
        "kernel": name,
        "ipi_rung": tally.ipi_rung or None,
        **tally_figures(tally),
        "bill": None if cells is None else _shortened(cells[:MOST_KERNEL_ROWS]),
        "waiters": [] if waited is None else waited["waiters"][:MOST_KERNEL_ROWS],
    }


def _passive(kernel: str, totals: PassiveTotals) -> dict[str, Any]:
    """Records of passive mode under one release, with what was sent on the creation path, by whichever task."""
    path = [row for row in bill(totals.seen) or [] if row["creation_path"]]
    return totals.figures(kernel) | {"creation_path": _shortened(path[:MOST_KERNEL_ROWS])}


def _shortened(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the innermost frames of the first stacks alone."""
    most = [MOST_KERNEL_FRAMES] * MOST_KERNEL_STACKS + [0] * len(rows)
    return [row | {"stack": row["stack"][:frames]} for row, frames in zip(rows, most, strict=False)]


def merged(tallies: Iterable[Tally]) -> Tally:
    """The sum over kernels."""
    whole = Tally()
    for one in tallies:
        for name in ("trials", "containers", "failed", "attributed", "creation_broadcasts", "watched"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        for name in ("hit_containers", "known_containers", "cpu_containers", "outlasted", "void_trials"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        whole.under_mutex_known = whole.under_mutex_known and one.under_mutex_known
        whole.void.update(one.void)
        _merge_keyed(whole, one)
        whole.churn_histogram = added(whole.churn_histogram, tuple(one.churn_histogram))
        whole.quiet_histogram = added(whole.quiet_histogram, tuple(one.quiet_histogram))
    return whole


def _merge_keyed(whole: Tally, one: Tally) -> None:
    for key, cell in one.cells.items():
        into = whole.cells.setdefault(key, CellTotals())
        for name in ("requests", "calls", "broadcasts", "under_slab_mutex", "quiet"):
            setattr(into, name, getattr(into, name) + getattr(cell, name))
    for waiter, wait in one.waiters.items():
        _add_wait(whole.waiters.setdefault(waiter, WaiterTotals()), wait)
    for step, durations in one.latencies.items():
        whole.latencies.setdefault(step, Percentiles()).buckets.update(durations.buckets)
    for name, score in one.pairs.items():
        whole.pairs[name].update(score)
    whole.per_cpu = [a + b for a, b in zip_longest(whole.per_cpu, one.per_cpu, fillvalue=0.0)]


def _add_wait(into: WaiterTotals, wait: WaiterTotals) -> None:
    into.waits, into.wait_ns = into.waits + wait.waits, into.wait_ns + wait.wait_ns
    known = [each for each in (into.longest_ns, wait.longest_ns) if each]
    unknown = None in (into.longest_ns, wait.longest_ns)
    into.longest_ns = max(known, default=None if unknown else 0)


def tally_figures(tally: Tally) -> dict[str, Any]:
    """The figures of one kernel, or of all."""
    watched, waits_of = bool(tally.watched), list(tally.waiters.values())
    count, wait_ns = sum(one.waits for one in waits_of), sum(one.wait_ns for one in waits_of)
    broadcasts = sum(cell.broadcasts for cell in tally.cells.values())
    above = sum(cell.requests - cell.quiet for cell in tally.cells.values())
    return {
        "trials": tally.trials,
        "void_trials": tally.void_trials,
        "void": dict(tally.void),
        "containers": tally.containers,
        "failed": tally.failed,
        "attributed_containers": tally.attributed,
        "creation_path_broadcasts": tally.creation_broadcasts if tally.attributed else None,
        "creation_path_broadcasts_per_container": share(tally.creation_broadcasts, tally.attributed),
        "broadcasts_per_container": share(broadcasts, tally.attributed),
        "requests_per_container": share(above, tally.attributed),
        "containers_with_broadcasts": tally.hit_containers if tally.known_containers else None,
        "containers_known": tally.known_containers,
        "slab_mutex_waits": count if watched else None,
        "slab_mutex_waits_per_container": share(count, tally.watched) if watched else None,
        "slab_mutex_wait_ms": milliseconds(wait_ns) if watched else None,
        "latency_ms": {
            step: _percentiles(durations)
            for step in (SANDBOX, *STEPS)
            if (durations := _step(tally, step)).buckets or step in STEPS
        },
    }


def bill(tally: Tally) -> list[dict[str, Any]] | None:
    """Every (reason, func, origin, path): creation path first, then by broadcasts. None: not attributed."""
    if not tally.attributed:
        return None
    rows: dict[tuple[str, str, str, str], CellTotals] = {}
    stacks: dict[tuple[str, str, str, str], tuple[int, tuple[str, ...]]] = {}
    for (*identity, stack), cell in tally.cells.items():
        key = (identity[0], identity[1], identity[2], identity[3])
        into = rows.setdefault(key, CellTotals())
        for name in ("requests", "calls", "broadcasts", "under_slab_mutex", "quiet"):
            setattr(into, name, getattr(into, name) + getattr(cell, name))
        stacks[key] = max(stacks.get(key, (-1, ())), (cell.broadcasts or cell.requests, stack))
    found = [_bill_row(tally, key, cell, stacks[key][1]) for key, cell in rows.items() if cell.requests]
    return sorted(
        found,
        key=lambda row: (not row["creation_path"], -row["broadcasts"], -row["requests_per_container"], row["reason"]),
    )


def _bill_row(tally: Tally, key: tuple[str, str, str, str], cell: CellTotals, stack: tuple[str, ...]) -> dict[str, Any]:
    reason, func, origin, path = key
    return {
        "reason": reason,
        "func": func,
        "origin": origin,
        "path": path,
        "creation_path": origin in _CREATION and path == Path.CREATE.value,
        "requests": cell.requests,
        "calls": cell.calls,
        "broadcasts": cell.broadcasts,
        "under_slab_mutex": cell.under_slab_mutex if tally.under_mutex_known else None,
        "requests_per_container": share(cell.requests - cell.quiet, tally.attributed) or 0.0,
        "broadcasts_per_container": share(cell.broadcasts, tally.attributed) or 0.0,
        "stack": list(stack),
    }


def waits(tally: Tally) -> dict[str, Any] | None:
    """Who waited for slab_mutex; None where they are not known. Bucket i of a histogram: [2**i, 2**(i+1)) ns."""
    if not tally.watched:
        return None
    ordered = sorted(tally.waiters.items(), key=lambda item: (-item[1].wait_ns, item[0]))
    return {
        "containers": tally.watched,
        "churn_histogram_ns": tally.churn_histogram,
        "quiet_histogram_ns": tally.quiet_histogram,
        "waiters": [
            {
                "waiter": waiter,
                "holder": holder,
                "path": path,
                "waits": wait.waits,
                "wait_ms": milliseconds(wait.wait_ns),
                "longest_ms": milliseconds(wait.longest_ns),
            }
            for (waiter, holder, path), wait in ordered[:MOST_WAITERS]
        ],
        "left_out": max(0, len(ordered) - MOST_WAITERS),
    }


def latencies(tally: Tally) -> list[dict[str, Any]]:
    """Durations by step, and by the creation-path broadcasts in a container's life. Percentiles +- 2.2 %."""
    return [
        {"step": step, "broadcasts": of, "containers": found.buckets.total()} | _percentiles(found)
        for step in (SANDBOX, *STEPS)
        for of in (*CLASSES, NOT_KNOWN)
        if (found := tally.latencies.get((step, of))) is not None
    ]


def per_cpu(tally: Tally) -> list[float] | None:
    """Requests per container to each CPU above quiet, item i is CPU i's; None where not counted."""
    if not tally.cpu_containers:
        return None
    return [round(requests / tally.cpu_containers, 4) for requests in tally.per_cpu]


def bin_figures(one: Bin, per_item: int = 1) -> dict[str, Any]:
    """One span of trials. An item of its `per_cpu` is the sum over `per_item` CPUs, to keep large machines short."""
    containers = one.containers
    return {
        "first_unix_s": one.first_unix_s,
        "last_unix_s": one.last_unix_s,
        "kernel": one.kernel,
        "verdict": one.verdict,
        "trials": one.trials,
        "void": one.void,
        "containers": containers,
        "attributed_containers": one.attributed,
        "watched_containers": one.watched,
        "containers_with_broadcasts": one.hit,
        "creation_path_broadcasts_per_container": share(one.creation_broadcasts, one.attributed),
        "other_broadcasts_per_container": share(one.other_broadcasts, one.attributed),
        "requests_per_container": {name: share(above, one.attributed) for name, above in one.requests.items()}
        if one.attributed
        else None,
        "churn_requests_per_s": _rate(one.churn_requests, one.churn_ns),
        "quiet_requests_per_s": _rate(one.quiet_requests, one.quiet_ns),
        "slab_mutex_waits_per_container": share(one.waits, one.watched) if one.watched else None,
        "slab_mutex_wait_ms_per_container": share(one.wait_ns / 1e6, one.watched) if one.watched else None,
        "create_ms": share(one.create_ms, containers),
        "start_ms": share(one.start_ms, containers),
        "per_cpu": _per_item(one, per_item) if one.cpu_containers else None,
        "evidence": {name: float(f"{evidence:.4g}") for name, evidence in one.evidence.items()},
    }


def _per_item(one: Bin, per_item: int) -> list[float]:
    sums = (sum(one.per_cpu[first : first + per_item]) for first in range(0, len(one.per_cpu), per_item))
    return [round(each / one.cpu_containers, 2) for each in sums]


def _rate(requests: int, duration_ns: int) -> float | None:
    return round(requests / (duration_ns / 1e9), 3) if duration_ns else None


def _nodes(seen: Collector) -> list[dict[str, Any]]:
    names = ("kernel", "arch", "cpus_online", "cgroup", "engine", "runtime", "network", "kmem_accounting")
    return [dict(zip(names, key, strict=True)) | counts for key, counts in seen.nodes.items()]


def _evidence(seen: Collector) -> dict[str, dict[str, Any]]:
    return {
        name: {"evidence": figures.evidence, "threshold": figures.threshold, "alerted": figures.alerted}
        for name, figures in seen.last_evidence.items()
    }


def _step(tally: Tally, step: str) -> Percentiles:
    whole: Counter[int] = Counter()
    for (name, _), durations in tally.latencies.items():
        if name == step:
            whole.update(durations.buckets)
    return Percentiles(whole)


def _percentiles(durations: Percentiles) -> dict[str, float | None]:
    return {f"p{percent}": durations.at(percent) for percent in _PERCENTS}


def _by_stack(tally: Tally, figure: str) -> dict[tuple[str, tuple[str, ...]], tuple[int, str]]:
    """(func, stack): (figure, origin and path)."""
    return {
        (func, stack): (getattr(cell, figure), f"{origin}/{path}")
        for (_, func, origin, path, stack), cell in tally.cells.items()
        if getattr(cell, figure)
    }
