"""What an alert says: the cell to blame, a headline a person understands, and how to confirm it without kickwatch."""

from collections.abc import Sequence
from typing import Any

from kickwatch.ledger import counted, creation_broadcasts, merge_cells, total_waits
from kickwatch.model import Cell, Trial, Wait


def worst_cell(trials: Sequence[Trial]) -> Cell | None:
    """The creation-path cell with the most broadcasts, the canaries' when the containers have none."""
    churn = [cell for trial in trials for cell in trial.churn.cells]
    canary = [cell for trial in trials if trial.canary is not None for cell in trial.canary.cells]
    for cells in (churn, canary):
        guilty = [cell for cell in merge_cells(cells) if cell.on_creation_path and cell.broadcasts]
        if guilty:
            return max(guilty, key=lambda cell: cell.broadcasts)
    return None


def broadcast_fields(trials: Sequence[Trial]) -> dict[str, Any]:
    """The fields of `kickwatch.broadcast_detected`, from the trials the verdict was computed from."""
    node = trials[-1].node
    containers = sum(len(counted(trial)) for trial in trials)
    waits = [wait for trial in trials for wait in trial.churn.waits]
    count, wait_ns = total_waits(waits)
    cell = worst_cell(trials)
    fields: dict[str, Any] = {
        "headline": headline(trials),
        "kernel": node.kernel,
        "cpus_online": node.cpus_online,
        "engine": node.engine,
        "containers": containers,
        "broadcasts_per_container": per(_all_broadcasts(trials), containers),
        "slab_mutex_waits": count,
        "slab_mutex_wait_ms": round(wait_ns / 1e6, 3),
        "slab_mutex_holders": holders(waits),
        "trials": [trial.trial_id for trial in trials],
    }
    if cell is not None:
        fields |= {
            "reason": cell.reason,
            "func": cell.func,
            "origin": cell.origin.value,
            "path": cell.path.value,
            "requests_per_container": per(cell.requests, containers),
            "share_under_slab_mutex": per(cell.under_slab_mutex, cell.requests),
            "stack": list(cell.stack),
            "confirm": bpftrace_line(cell),
        }
    return fields


def headline(trials: Sequence[Trial]) -> str:
    """One sentence: how often, what, by whom, at whose cost."""
    cell = worst_cell(trials)
    if cell is None:
        return "bare memory cgroups make the kernel interrupt every CPU; no probe tells why"
    containers = sum(len(counted(trial)) for trial in trials)
    held = " holding slab_mutex" if cell.under_slab_mutex * 2 >= cell.requests else ""
    return (
        f"{per(cell.broadcasts, containers):g} x {cell.reason} per container, "
        f"sent by {sender(cell)}{held}{_waiting(trials)}"
    )


def _waiting(trials: Sequence[Trial]) -> str:
    count, wait_ns = total_waits(wait for trial in trials for wait in trial.churn.waits)
    return f", while slab_mutex was waited for {count} times, {wait_ns / 1e6:.0f} ms in all" if count else ""


def sender(cell: Cell) -> str:
    """Who made the call, from the root of its stack."""
    frames = set(cell.stack)
    if "worker_thread" in frames:
        return "a kworker"
    if "kthread" in frames:
        return "a kernel thread"
    return "the task that creates the container"


def holders(waits: Sequence[Wait]) -> list[str]:
    """The tasks that held slab_mutex, the one that cost most first."""
    cost: dict[str, int] = {}
    for wait in waits:
        cost[wait.holder] = cost.get(wait.holder, 0) + wait.wait_ns
    return sorted(cost, key=lambda holder: -cost[holder])[:5]


def bpftrace_line(cell: Cell) -> str:
    """A command that shows the same requests by stack for a minute, without kickwatch."""
    return (
        "bpftrace -e 'tracepoint:csd:csd_queue_cpu "
        f'/args->func == kaddr("{cell.func}")/ {{ @[kstack(12)] = count(); }} interval:s:60 {{ exit(); }}\''
    )


def per(amount: float, units: int) -> float:
    """Rounded for people."""
    return round(amount / units, 3) if units else 0.0


def _all_broadcasts(trials: Sequence[Trial]) -> float:
    return sum(creation_broadcasts(trial.churn.cells) for trial in trials)
