"""The trial as one JSON object (schema 1): the contract of `kickwatch trial --json`. None: could not be measured."""

from statistics import quantiles
from typing import Any

from kickwatch.detect.bill import BillRow, share, trial_rows
from kickwatch.detect.figures import (
    above_quiet,
    attributed,
    counted,
    creation_broadcasts,
    known_creation_broadcasts,
    known_waits,
    longest_wait_ns,
    quiet_rate_hz,
    total_requests,
    total_waits,
    under_slab_mutex_known,
    zero_is_certain,
)
from kickwatch.detect.verdict import ReasonedVerdict, cal_minus_tlb_per_memcg
from kickwatch.model import SCHEMA_VERSION, Cell, IpiRung, Trial
from kickwatch.outlets.isolation import isolated_per_container
from kickwatch.report.isolation import isolation_summary
from kickwatch.report.pairs import pairs_summary

_DIGITS = 4


def summarise(trial: Trial, judgement: ReasonedVerdict) -> dict[str, Any]:
    """Every figure of one trial. Rates above the quiet window's can be slightly negative, by chance."""
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
        "pairs": pairs_summary(trial),
        "per_container": per_container(trial),
        **isolation_summary(trial),
        "canary": canary(trial),
        "bill": bill(trial),
        "waits": waits(trial),
        "latency_ms": latencies(trial),
        "overhead": overhead(trial),
        "notes": list(trial.notes),
    }


def per_container(trial: Trial) -> dict[str, float | None]:
    """What one container cost the whole machine; None for what could not be measured, and if no container counts.

    Counters and requests are above the quiet window's rate. Broadcasts and waits are as counted: the stack is proof.
    """
    rise, base, probed = trial.churn.interrupts, trial.quiet.interrupts, attributed(trial)
    requests = (total_requests(trial.churn.cells), total_requests(trial.quiet.cells)) if probed else (None, None)
    broadcasts = sum(cell.broadcasts for cell in trial.churn.cells) if probed else None
    seen = known_waits(trial)
    count, wait_ns = (None, None) if seen is None else total_waits(seen)
    return {
        "cal": _above(trial, rise.cal, base.cal),
        "tlb": _above(trial, rise.tlb, base.tlb),
        "res": _above(trial, rise.res, base.res),
        "requests": _above(trial, *requests),
        "isolated_requests": isolated_per_container([trial]),
        "broadcasts": _each(trial, broadcasts),
        "creation_path_broadcasts": _each(trial, known_creation_broadcasts(trial)),
        "slab_mutex_waits": _each(trial, count),
        "slab_mutex_wait_ns": _each(trial, wait_ns, 1),
    }


def _each(trial: Trial, amount: float | None, digits: int = _DIGITS) -> float | None:
    """`amount` per container that counts."""
    return None if amount is None else share(amount, len(counted(trial)), digits)


def _above(trial: Trial, churn: float | None, quiet: float | None) -> float | None:
    """The rise above the quiet window's rate, per container that counts."""
    return None if churn is None or quiet is None else _each(trial, above_quiet(trial, churn, quiet))


def overhead(trial: Trial) -> dict[str, int | None]:
    """Events that the probes lost, or counted without a stack; None if none was armed."""
    armed = (trial.observers.ipis, trial.observers.contention) != ("counters", "none")
    lost, stackless = trial.churn.lost_events, trial.churn.stackless_events
    return {"lost_events": lost if armed else None, "stackless_events": stackless if armed else None}


def canary(trial: Trial) -> dict[str, float | int | None] | None:
    """The figures of the batch of bare memory cgroups; None without one."""
    batch = trial.canary
    if batch is None:
        return None
    cal_minus_tlb = cal_minus_tlb_per_memcg(batch)
    broadcasts = creation_broadcasts(batch.cells)
    known = attributed(trial) and (broadcasts > 0 or zero_is_certain(batch))
    return {
        "memcgs": batch.memcgs,
        "cal_minus_tlb_per_memcg": None if cal_minus_tlb is None else round(cal_minus_tlb, _DIGITS),
        "creation_path_broadcasts_per_memcg": round(broadcasts / batch.memcgs, _DIGITS) if known else None,
        "lost_events": None if trial.observers.ipis is IpiRung.COUNTERS else batch.lost_events,
    }


def bill(trial: Trial) -> list[dict[str, Any]] | None:
    """Every cell of the churn window, largest first; None if no probe was armed.

    If the probe failed its positive control, these are its counts all the same, and prove nothing.
    """
    if trial.observers.ipis is IpiRung.COUNTERS:
        return None
    rows = trial_rows(trial, lambda cell: cell.identity)
    return [_bill_row(trial, cell, rows[cell.identity]) for cell in trial.churn.cells]


def _bill_row(trial: Trial, cell: Cell, row: BillRow) -> dict[str, Any]:
    others = max(1, trial.node.cpus_online - 1)
    return {
        "reason": cell.reason,
        "func": cell.func,
        "origin": cell.origin.value,
        "path": cell.path.value,
        "requests": cell.requests,
        "isolated": cell.isolated if trial.isolated_cpus else None,
        "calls": cell.calls,
        "broadcasts": cell.broadcasts,
        "under_slab_mutex": cell.under_slab_mutex if under_slab_mutex_known(trial) else None,
        "sweeps_per_container": _each(trial, row.above_quiet / others),
        "quiet_rate_hz": round(quiet_rate_hz(trial, row.quiet_requests), _DIGITS),
        "stack": list(cell.stack),
    }


def waits(trial: Trial) -> list[dict[str, Any]] | None:
    """Who waited for slab_mutex in the churn window, and for whom, longest total first; None if not known."""
    seen = known_waits(trial)
    if seen is None:
        return None
    return [
        {
            "waiter": wait.waiter,
            "holder": wait.holder,
            "origin": wait.origin.value,
            "path": wait.path.value,
            "waits": wait.waits,
            "wait_ns": wait.wait_ns,
            "max_wait_ns": longest_wait_ns([wait]),
        }
        for wait in seen
    ]


def latencies(trial: Trial) -> dict[str, dict[str, float | None]]:
    """Milliseconds per step, over the containers that count."""
    lives = counted(trial)
    steps = {
        "sandbox": [life.sandbox_ms for life in lives if life.sandbox_ms is not None],
        "create": [life.create_ms for life in lives],
        "start": [life.start_ms for life in lives],
        "wait": [life.wait_ms for life in lives],
        "remove": [life.remove_ms for life in lives],
    }
    return {
        step: {"p50": _percentile(values, 50), "p99": _percentile(values, 99)}
        for step, values in steps.items()
        if values or step != "sandbox"  # only engines with pods have that step
    }


def _percentile(values: list[float], percent: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 3)
    return round(quantiles(values, n=100, method="inclusive")[percent - 1], 3)
