"""What an alert says: the cell to blame, a headline a person understands, and how to confirm it without kickwatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kickwatch.detect.bill import share
from kickwatch.detect.figures import (
    attributed,
    counted,
    creation_broadcasts,
    longest_wait_ns,
    merge_cells,
    milliseconds,
    per,
    total_waits,
    under_slab_mutex_known,
    waits_known,
)
from kickwatch.model import Cell, MutexWait, Trial


@dataclass(frozen=True)
class Blame:
    """The creation-path cell with the most broadcasts, and what it is counted by: `container` or `memory cgroup`."""

    cell: Cell
    units: int
    unit: str


def blame(trials: Sequence[Trial]) -> Blame | None:
    """The worst cell of the containers, of the canaries when the containers have none; None when no probe tells."""
    canaries = [trial.canary for trial in trials if trial.canary is not None]
    containers = sum(len(counted(trial)) for trial in trials)
    memcgs = sum(canary.memcgs for canary in canaries)
    for cells, units, unit in (
        ([cell for trial in trials for cell in trial.churn.cells], containers, "container"),
        ([cell for canary in canaries for cell in canary.cells], memcgs, "memory cgroup"),
    ):
        guilty = [cell for cell in merge_cells(cells) if cell.on_creation_path and cell.broadcasts]
        if guilty and units:
            return Blame(max(guilty, key=lambda cell: cell.broadcasts), units, unit)
    return None


def broadcast_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.broadcast_detected`, from the trials the verdict was computed from.

    None is what none of them could know.
    """
    node = trials[-1].node
    seen = [trial for trial in trials if attributed(trial)]
    broadcasts = sum(creation_broadcasts(trial.churn.cells) for trial in seen)
    worst = blame(trials)
    fields: dict[str, Any] = {
        "headline": headline(trials),
        "kernel": node.kernel,
        "cpus_online": node.cpus_online,
        "engine": node.engine,
        "containers": sum(len(counted(trial)) for trial in trials),
        "broadcasts_per_container": share(broadcasts, sum(len(counted(trial)) for trial in seen)),
        **_wait_fields(trials),
        "trials": [trial.trial_id for trial in trials],
        "confirm": bpftrace_line(worst.cell if worst is not None else None, trials[-1].observers.ipis),
    }
    if worst is not None:
        unit = worst.unit.replace(" ", "_")
        fields |= {
            "reason": worst.cell.reason,
            "func": worst.cell.func,
            "origin": worst.cell.origin.value,
            "path": worst.cell.path.value,
            f"broadcasts_per_{unit}": per(worst.cell.broadcasts, worst.units),
            f"requests_per_{unit}": per(worst.cell.requests, worst.units),
            "share_under_slab_mutex": _share_under_slab_mutex(worst.cell, trials),
            "stack": list(worst.cell.stack),
        }
    return fields


def _wait_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The waits for slab_mutex, of the trials that looked for them; None where none did."""
    waits = watched_waits(trials)
    count, wait_ns = (None, None) if waits is None else total_waits(waits)
    return {
        "slab_mutex_waits": count,
        "slab_mutex_wait_ms": milliseconds(wait_ns),
        "slab_mutex_holders": None if waits is None else holders(waits),
    }


def watched_waits(trials: Sequence[Trial]) -> list[MutexWait] | None:
    """Those of the churn windows of the trials that looked for them; None where none did."""
    looked = [trial for trial in trials if waits_known(trial)]
    return [wait for trial in looked for wait in trial.churn.waits] if looked else None


def _share_under_slab_mutex(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """Of the cell's requests; None unless all trials could tell."""
    return per(cell.under_slab_mutex, cell.requests) if all(map(under_slab_mutex_known, trials)) else None


def headline(trials: Sequence[Trial]) -> str:
    """One sentence: how often, what, by whom, at whose cost."""
    worst = blame(trials)
    if worst is None:
        return "bare memory cgroups make the kernel interrupt every CPU; no probe tells why"
    cell = worst.cell
    held = " holding slab_mutex" if cell.under_slab_mutex * 2 >= cell.requests else ""
    often = f"{per(cell.broadcasts, worst.units):g} x {cell.reason} per {worst.unit}"
    return f"{often}, sent by {sender(cell)}{held}{_waiting(trials)}"


def _waiting(trials: Sequence[Trial]) -> str:
    count, wait_ns = total_waits(watched_waits(trials) or ())
    return f", while slab_mutex was waited for {count} times, {wait_ns / 1e6:.0f} ms in all" if count else ""


def sender(cell: Cell) -> str:
    """Who made the call, from the root of its stack."""
    frames = set(cell.stack)
    if "worker_thread" in frames:
        return "a kworker"
    if "kthread" in frames:
        return "a kernel thread"
    return "the task that creates the container"


def holders(waits: Sequence[MutexWait]) -> list[str]:
    """The tasks that held slab_mutex, the one that cost most first."""
    cost: dict[str, int] = {}
    for wait in waits:
        cost[wait.holder] = cost.get(wait.holder, 0) + wait.wait_ns
    return sorted(cost, key=lambda holder: -cost[holder])[:5]


def bpftrace_line(cell: Cell | None, rung: str = "csd") -> str:
    """A command that shows the same requests by stack for a minute, without kickwatch; all requests without a cell.

    Where kprobes were the rung, the innermost frame is the function they were on.
    """
    place, func = "tracepoint:csd:csd_queue_cpu", "args->func"
    if rung == "kprobe":
        sender = next(iter(cell.stack), "") if cell is not None else ""
        place, func = f"kprobe:{sender or 'smp_call_function_many_cond'}", "arg1"
    only = f'/{func} == kaddr("{cell.func}")/ ' if cell is not None else ""
    program = f"{place} {only}{{ @[ksym({func}), kstack(12)] = count(); }}"
    return f"bpftrace -e '{program} interval:s:60 {{ exit(); }}'"


def identity(trials: Sequence[Trial]) -> dict[str, Any]:
    """Which node, and which trials: what every alert says."""
    node = trials[-1].node
    return {"kernel": node.kernel, "engine": node.engine, "trials": [trial.trial_id for trial in trials]}


def contention_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.contention_detected`."""
    waits = watched_waits(trials)
    longest = None if waits is None else longest_wait_ns(waits)
    return identity(trials) | _wait_fields(trials) | {"slab_mutex_longest_ms": milliseconds(longest)}
