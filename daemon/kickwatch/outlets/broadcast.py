"""The fields of an alert: the cell to blame, a headline for people, a command that confirms it without kickwatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kickwatch.attribution.reasons import explain
from kickwatch.detect.bill import share
from kickwatch.detect.figures import (
    attributed,
    counted,
    creation_broadcasts,
    known_waits,
    longest_wait_ns,
    merge_cells,
    milliseconds,
    per,
    total_waits,
    under_slab_mutex_known,
)
from kickwatch.detect.passive import containers_of_others, counting_cells
from kickwatch.model import Cell, MutexWait, Trial


@dataclass(frozen=True)
class Blame:
    """The creation-path cell with the most broadcasts. `unit`: `container` or `memory cgroup`; `units`: how many."""

    cell: Cell
    units: int
    unit: str


def blame(trials: Sequence[Trial]) -> Blame | None:
    """The worst cell of the containers, or else of the canaries. None if no creation-path broadcast was attributed."""
    canaries = [trial.canary for trial in trials if trial.canary is not None]
    containers = _containers(trials)
    memcgs = sum(canary.memcgs for canary in canaries)
    for cells, units, unit in (
        ([cell for trial in trials for cell in counting_cells(trial)], containers, "container"),
        ([cell for canary in canaries for cell in canary.cells], memcgs, "memory cgroup"),
    ):
        guilty = [cell for cell in merge_cells(cells) if cell.on_creation_path and cell.broadcasts]
        if guilty and units:
            return Blame(max(guilty, key=lambda cell: cell.broadcasts), units, unit)
    return None


def broadcast_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.broadcast_detected`. `trials`: those that the verdict is computed from.

    A field is None if none of them could measure it.
    """
    node = trials[-1].node
    probed = [trial for trial in trials if attributed(trial)]
    broadcasts = sum(creation_broadcasts(counting_cells(trial)) for trial in probed)
    worst = blame(trials)
    fields: dict[str, Any] = {
        "headline": headline(trials),
        "meaning": explain(worst.cell.func) if worst is not None else "no probe tells which function the CPUs run.",
        "kernel": node.kernel,
        "cpus_online": node.cpus_online,
        "engine": node.engine,
        "containers": _containers(trials),
        "broadcasts_per_container": share(broadcasts, _containers(probed)),
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


def _containers(trials: Sequence[Trial]) -> int:
    """Those that kickwatch started, or in passive mode others."""
    return sum(len(counted(trial)) + containers_of_others(trial) for trial in trials)


def _wait_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The waits for slab_mutex, over the trials that observed them. None if none did."""
    waits = watched_waits(trials)
    count, wait_ns = (None, None) if waits is None else total_waits(waits)
    return {
        "slab_mutex_waits": count,
        "slab_mutex_wait_ms": milliseconds(wait_ns),
        "slab_mutex_holders": None if waits is None else holders(waits),
    }


def watched_waits(trials: Sequence[Trial]) -> list[MutexWait] | None:
    """The waits in the churn windows of the trials that observed them. None if no trial did."""
    observed = [waits for waits in map(known_waits, trials) if waits is not None]
    return [wait for waits in observed for wait in waits] if observed else None


def _share_under_slab_mutex(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """The share of the cell's requests. None unless all trials observed it."""
    return per(cell.under_slab_mutex, cell.requests) if all(map(under_slab_mutex_known, trials)) else None


def headline(trials: Sequence[Trial]) -> str:
    """One sentence: how often, what, sent by whom, and who had to wait."""
    worst = blame(trials)
    if worst is None:
        return "bare memory cgroups make the kernel interrupt every CPU; the reason is unknown without a probe"
    cell = worst.cell
    held = " holding slab_mutex" if cell.under_slab_mutex * 2 >= cell.requests else ""
    often = f"{per(cell.broadcasts, worst.units):g} x {cell.reason} per {worst.unit}"
    return f"{often}, sent by {sender(cell)}{held}{_waiting(trials)}"


def _waiting(trials: Sequence[Trial]) -> str:
    count, wait_ns = total_waits(watched_waits(trials) or ())
    return f", with {count} waits for slab_mutex, {wait_ns / 1e6:.0f} ms in total" if count else ""


def sender(cell: Cell, otherwise: str = "the task that creates the container") -> str:
    """Which kind of task made the call, from the root of its stack; `otherwise` if it is no kernel thread."""
    frames = set(cell.stack)
    if "worker_thread" in frames:
        return "a kworker"
    return "a kernel thread" if "kthread" in frames else otherwise


def holders(waits: Sequence[MutexWait]) -> list[str]:
    """The tasks that held slab_mutex while others waited: at most five, by waiting time."""
    cost: dict[str, int] = {}
    for wait in waits:
        cost[wait.holder] = cost.get(wait.holder, 0) + wait.wait_ns
    return sorted(cost, key=lambda holder: -cost[holder])[:5]


def bpftrace_line(cell: Cell | None, rung: str = "csd") -> str:
    """A command that shows the requests of `cell` by stack for a minute; all requests if it is None.

    On the kprobe rung, the innermost frame of the stack is the probed function.
    """
    place, func = "tracepoint:csd:csd_queue_cpu", "args->func"
    if rung == "kprobe":
        sender = next(iter(cell.stack), "") if cell is not None else ""
        place, func = f"kprobe:{sender or 'smp_call_function_many_cond'}", "arg1"
    only = f'/{func} == kaddr("{cell.func}")/ ' if cell is not None else ""
    program = f"{place} {only}{{ @[ksym({func}), kstack(12)] = count(); }}"
    return f"bpftrace -e '{program} interval:s:60 {{ exit(); }}'"


def identity(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields that every alert has: the node and the trials."""
    node = trials[-1].node
    return {"kernel": node.kernel, "engine": node.engine, "trials": [trial.trial_id for trial in trials]}


def contention_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.contention_detected`."""
    waits = watched_waits(trials)
    longest = None if waits is None else longest_wait_ns(waits)
    return identity(trials) | _wait_fields(trials) | {"slab_mutex_longest_ms": milliseconds(longest)}
