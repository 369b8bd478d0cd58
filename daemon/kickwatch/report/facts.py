"""The figures of one trial as labelled lines: waits for slab_mutex, interrupts, isolated CPUs, times, set-up. Pure."""

from typing import Any

from kickwatch.detect.figures import longest_wait_ns, waits_known
from kickwatch.model import ContentionRung, Trial
from kickwatch.report.isolation import isolation_text
from kickwatch.report.pairs import windows_text

_FAILURES_SHOWN = 5
Row = tuple[str, str]


def waits_of(trial: Trial) -> tuple[str, list[tuple[str, ...]]]:
    """A sentence about the waits, and rows of (waits, total ms, longest ms, waiter, holder), longest total first."""
    if trial.observers.contention is ContentionRung.NONE:
        return "waits not known, no probe measures them", []
    if not waits_known(trial):
        return "waits not known, its address is not known yet", []
    if not trial.churn.waits:
        lost = trial.churn.lost_waits
        return f"no wait was seen, {lost} were lost" if lost else "nobody waited", []
    rows: list[tuple[str, ...]] = [
        (str(wait.waits), _ms(wait.wait_ns), _ms(longest_wait_ns([wait])), wait.waiter, wait.holder)
        for wait in trial.churn.waits
    ]
    total_ns = sum(wait.wait_ns for wait in trial.churn.waits)
    return f"{sum(wait.waits for wait in trial.churn.waits)} waits, {_ms(total_ns)} ms in total", rows


def figures_of(trial: Trial, summary: dict[str, Any]) -> list[Row]:
    """Interrupts, isolated CPUs, the canary, times, and what went wrong. `summary`: as `summarise` returns it."""
    each, steps = summary["per_container"], summary["latency_ms"]
    read = [f"{name.upper()} {each[name]:.1f}" for name in ("cal", "tlb", "res") if each[name] is not None]
    interrupts = f"{', '.join(read)} per container" if read else "not known"
    rows = [("interrupts", f"{interrupts}; requests {_known(each['requests'], '.1f')}")]
    if isolation := isolation_text(trial, summary):
        rows.append(("isolation", isolation))
    if batch := summary["canary"]:
        broadcasts = _amount(batch["creation_path_broadcasts_per_memcg"], "creation-path broadcasts")
        counted = _amount(batch["cal_minus_tlb_per_memcg"], "CAL minus TLB interrupts")
        what = f"the test of 2017 in small, {batch['memcgs']} bare memory cgroups"
        rows.append(("canary", f"{what}: each {broadcasts}, {counted}"))
    if summary["containers"]:
        times = ", ".join(f"{step} {each['p50']:.0f}/{each['p99']:.0f}" for step, each in steps.items())
        rows.append(("time", f"{times} ms (p50/p99)"))
    overhead = summary["overhead"]
    if overhead["lost_events"] or overhead["stackless_events"]:
        rows.append(("lost", f"{overhead['lost_events']} events; without a stack {overhead['stackless_events']}"))
    failed = [container.failure for container in trial.containers if container.failure]
    rows += [("failed", failure) for failure in failed[:_FAILURES_SHOWN]]
    if len(failed) > _FAILURES_SHOWN:
        rows.append(("failed", f"{len(failed) - _FAILURES_SHOWN} more"))
    return rows


def setting_of(trial: Trial, summary: dict[str, Any]) -> list[Row]:
    """What the figures hold for: kernel, engine, observers, and how the trial compared."""
    node, observers = trial.node, trial.observers
    rows = []
    if trial.control is not None:
        outcome = "passed" if trial.control.passed else "FAILED"
        counted = "counted " if trial.control.calls is not None else ""
        rows.append(("control", f"{outcome}: {counted}{trial.control.detail}"))
    armed = f"IPIs {observers.ipis}, contention {observers.contention}"
    where = f"Linux {node.kernel}, {node.cpus_online} CPUs, cgroup {node.cgroup}"
    return [
        *rows,
        ("observers", f"{armed}; kmem accounting {trial.kmem_accounting}"),
        ("node", f"{where}, {node.engine}, network {node.network}"),
        ("trial", f"{trial.trial_id}: {summary['containers']} containers in {windows_text(trial, summary)}"),
    ]


def _ms(duration_ns: int | None) -> str:
    return _known(None if duration_ns is None else duration_ns / 1e6, ".3f")


def _amount(figure: float | None, of: str) -> str:
    """`3 broadcasts`, or `broadcasts not known`."""
    return f"{of} not known" if figure is None else f"{figure:g} {of}"


def _known(figure: float | None, form: str = "g") -> str:
    return "not known" if figure is None else format(figure, form)
