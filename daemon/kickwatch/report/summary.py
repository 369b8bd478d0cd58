"""The trial as one JSON object (schema 1): the contract of `kickwatch trial --json`."""

from statistics import quantiles
from typing import Any

from kickwatch.detect.verdict import Judgement, cal_minus_tlb_per_memcg
from kickwatch.ledger import above_quiet, counted, creation_broadcasts, quiet_rate_hz, total_requests, total_waits
from kickwatch.model import SCHEMA_VERSION, Canary, Cell, Trial

_DIGITS = 4


def summarise(trial: Trial, judgement: Judgement) -> dict[str, Any]:
    """Every figure of one trial. Rates above quiet can be slightly negative: noise has two sides."""
    return {
        "schema": SCHEMA_VERSION,
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "findings": list(judgement.findings),
        "trial": trial.trial_id,
        "seed": trial.seed,
        "order": list(trial.order),
        "unsettled": trial.unsettled,
        "void": trial.void,
        "containers": len(counted(trial)),
        "failures": [container.failure for container in trial.containers if container.failure],
        "kmem_accounting": trial.kmem_accounting.value,
        "kernel": trial.node.kernel,
        "cpus_online": trial.node.cpus_online,
        "engine": trial.node.engine,
        "cgroup": trial.node.cgroup,
        "observers": {"ipis": trial.observers.ipis, "contention": trial.observers.contention},
        "control": {"passed": trial.control.passed, "detail": trial.control.detail} if trial.control else None,
        "window_s": round(trial.churn.duration_ns / 1e9, 3),
        "per_container": per_container(trial),
        "canary": canary(trial.canary),
        "bill": bill(trial),
        "waits": waits(trial),
        "latency_ms": latencies(trial),
        "overhead": {"lost_events": trial.churn.lost_events, "stackless_events": trial.churn.stackless_events},
        "notes": list(trial.notes),
    }


def per_container(trial: Trial) -> dict[str, float | None]:
    """What one container cost the whole machine; None for what could not be known.

    Counters and requests above the quiet window's rate; broadcasts and waits as counted, since the stack is the proof.
    """
    containers = len(counted(trial)) or 1

    def above(churn: float | None, quiet: float | None) -> float | None:
        if churn is None or quiet is None:
            return None
        return round(above_quiet(trial, churn, quiet) / containers, _DIGITS)

    rise, base = trial.churn.interrupts, trial.quiet.interrupts
    count, wait_ns = total_waits(trial.churn.waits)
    return {
        "cal": above(rise.cal, base.cal),
        "tlb": above(rise.tlb, base.tlb),
        "res": above(rise.res, base.res),
        "requests": above(total_requests(trial.churn.cells), total_requests(trial.quiet.cells)),
        "broadcasts": round(sum(cell.broadcasts for cell in trial.churn.cells) / containers, _DIGITS),
        "creation_path_broadcasts": round(creation_broadcasts(trial.churn.cells) / containers, _DIGITS),
        "slab_mutex_waits": round(count / containers, _DIGITS) if trial.slab_mutex_known else None,
        "slab_mutex_wait_ns": round(wait_ns / containers, 1) if trial.slab_mutex_known else None,
    }


def canary(batch: Canary | None) -> dict[str, float | int | None] | None:
    """The batch of bare memory cgroups."""
    if batch is None:
        return None
    cal_minus_tlb = cal_minus_tlb_per_memcg(batch)
    return {
        "memcgs": batch.memcgs,
        "cal_minus_tlb_per_memcg": None if cal_minus_tlb is None else round(cal_minus_tlb, _DIGITS),
        "creation_path_broadcasts_per_memcg": round(creation_broadcasts(batch.cells) / batch.memcgs, _DIGITS),
    }


def bill(trial: Trial) -> list[dict[str, Any]]:
    """Every cell of the churn window, largest first."""
    quiet = {cell.identity: cell.requests for cell in trial.quiet.cells}
    return [_bill_row(trial, cell, quiet.get(cell.identity, 0)) for cell in trial.churn.cells]


def _bill_row(trial: Trial, cell: Cell, quiet_requests: int) -> dict[str, Any]:
    others = max(1, trial.node.cpus_online - 1)
    containers = len(counted(trial)) or 1
    return {
        "reason": cell.reason,
        "func": cell.func,
        "origin": cell.origin.value,
        "path": cell.path.value,
        "requests": cell.requests,
        "calls": cell.calls,
        "broadcasts": cell.broadcasts,
        "under_slab_mutex": cell.under_slab_mutex,
        "sweeps_per_container": round(above_quiet(trial, cell.requests, quiet_requests) / others / containers, _DIGITS),
        "quiet_rate_hz": round(quiet_rate_hz(trial, quiet_requests), _DIGITS),
        "stack": list(cell.stack),
    }


def waits(trial: Trial) -> list[dict[str, Any]]:
    """Who waited for slab_mutex during the churn window, and for whom; longest total first."""
    return [
        {
            "waiter": wait.waiter,
            "holder": wait.holder,
            "origin": wait.origin.value,
            "path": wait.path.value,
            "waits": wait.waits,
            "wait_ns": wait.wait_ns,
            "max_wait_ns": wait.max_wait_ns,
        }
        for wait in trial.churn.waits
    ]


def latencies(trial: Trial) -> dict[str, dict[str, float | None]]:
    """Milliseconds per step, over the containers that count."""
    lives = counted(trial)
    steps = {
        "create": [life.create_ms for life in lives],
        "start": [life.start_ms for life in lives],
        "wait": [life.wait_ms for life in lives],
        "remove": [life.remove_ms for life in lives],
    }
    return {step: {"p50": _percentile(values, 50), "p99": _percentile(values, 99)} for step, values in steps.items()}


def _percentile(values: list[float], percent: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 3)
    return round(quantiles(values, n=100, method="inclusive")[percent - 1], 3)
