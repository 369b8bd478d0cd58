"""The trial as text for a person: what each container made the other CPUs run, who waited, and the verdict."""

from collections.abc import Sequence
from typing import Any

from kickwatch.attribution.stacks import top_of_stack
from kickwatch.detect.verdict import ReasonedVerdict
from kickwatch.model import Trial
from kickwatch.report.isolation import isolation_text
from kickwatch.report.pairs import windows_text
from kickwatch.report.sentence import sentence
from kickwatch.report.summary import summarise

_CELL_HEAD, _ISOLATED_HEAD = ("reason", "origin", "path", "requests"), "isolated"
_COST_HEAD = ("calls", "broadcasts", "sweeps/container", "quiet/s", "asked by")
_WAIT_HEAD = ("waiter", "held by", "waits", "total ms", "longest ms")


def trial_text(trial: Trial, judgement: ReasonedVerdict, trials: Sequence[Trial] = ()) -> str:
    """Several paragraphs, ready to print. `trials`: all trials of the run, if there were several."""
    summary = summarise(trial, judgement)
    parts = [
        _head(trial, summary),
        _bill(summary),
        _waits(summary),
        _costs(trial, summary),
        _verdict(trials or [trial], judgement),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(trial: Trial, summary: dict[str, Any]) -> str:
    observers = trial.observers
    lines = [
        f"trial {trial.trial_id}: {summary['containers']} containers on {trial.node.engine} ({trial.node.network}), "
        f"Linux {trial.node.kernel}, {trial.node.cpus_online} CPUs, cgroup {trial.node.cgroup}",
        f"{windows_text(trial, summary)}; "
        f"kmem accounting {summary['kmem_accounting']}; "
        f"observers: IPIs {observers.ipis}, contention {observers.contention}",
    ]
    if trial.control is not None:
        outcome = "passed" if trial.control.passed else "FAILED"
        counted = "the probe counted " if trial.control.calls is not None else ""
        lines.append(f"positive control {outcome}: {counted}{trial.control.detail}")
    if trial.void:
        lines.append(f"void: this trial proves nothing ({trial.void})")
    return "\n".join([*lines, *(f"note: {note}" for note in trial.notes)])


def _bill(summary: dict[str, Any]) -> str:
    if summary["bill"] is None:
        return "what the other CPUs were made to run is not known: no probe is armed"
    if not summary["bill"]:
        return ""
    split = bool(summary["isolated_cpus"])
    head = (*_CELL_HEAD, *((_ISOLATED_HEAD,) if split else ()), *_COST_HEAD)
    rows = [_bill_row(row, split=split) for row in summary["bill"]]
    return "what the other CPUs were made to run while containers came and went:\n" + table(head, rows)


def _bill_row(row: dict[str, Any], *, split: bool) -> tuple[str, ...]:
    """`split`: the requests to isolated CPUs are shown, too."""
    return (
        row["reason"],
        row["origin"],
        row["path"],
        str(row["requests"]),
        *((_known(row["isolated"]),) if split else ()),
        str(row["calls"] or ""),
        str(row["broadcasts"] or ""),
        _known(row["sweeps_per_container"], ".2f"),
        f"{row['quiet_rate_hz']:.1f}",
        top_of_stack(row["stack"]) if row["stack"] else "",
    )


def _waits(summary: dict[str, Any]) -> str:
    if summary["observers"]["contention"] == "none":
        return "slab_mutex: waits not known, no probe measures them"
    if summary["waits"] is None:
        return "slab_mutex: waits not known, its address is not known yet"
    rows = [
        (row["waiter"], row["holder"], str(row["waits"]), _ms(row["wait_ns"]), _ms(row["max_wait_ns"]))
        for row in summary["waits"]
    ]
    return "slab_mutex:\n" + table(_WAIT_HEAD, rows) if rows else "slab_mutex: nobody waited"


def _ms(duration_ns: int | None) -> str:
    return _known(None if duration_ns is None else duration_ns / 1e6, ".3f")


def _costs(trial: Trial, summary: dict[str, Any]) -> str:
    each, steps = summary["per_container"], summary["latency_ms"]
    read = [f"{name.upper()} {each[name]:.1f}" for name in ("cal", "tlb", "res") if each[name] is not None]
    counters = ", ".join(read) or "interrupts not known"
    lines = [
        f"per container, all CPUs, above the quiet window: {counters}; requests {_known(each['requests'], '.1f')}",
        f"creation path: {_amount(each['creation_path_broadcasts'], 'broadcasts per container')}",
        *filter(None, [isolation_text(trial, summary)]),
    ]
    batch = summary["canary"]
    if batch:
        broadcasts = _amount(batch["creation_path_broadcasts_per_memcg"], "creation-path broadcasts")
        interrupts = _amount(batch["cal_minus_tlb_per_memcg"], "interrupts (CAL minus TLB)")
        lines.append(f"canary: {batch['memcgs']} bare memory cgroups, each {broadcasts} and {interrupts}")
    if summary["containers"]:
        times = ", ".join(f"{step} {figures['p50']:.0f}/{figures['p99']:.0f}" for step, figures in steps.items())
        lines.append(f"milliseconds, p50/p99: {times}")
    overhead = summary["overhead"]
    if overhead["lost_events"] or overhead["stackless_events"]:
        lines.append(f"lost events {overhead['lost_events']}, counted without a stack {overhead['stackless_events']}")
    failures = [container for container in trial.containers if container.failure]
    lines += [f"failed: {container.failure}" for container in failures[:5]]
    return "\n".join(lines)


def _verdict(trials: Sequence[Trial], judgement: ReasonedVerdict) -> str:
    why = f" ({', '.join(judgement.reasons)})" if judgement.reasons else ""
    lines = [f"verdict: {judgement.verdict.value}{why}: {sentence(trials, judgement)}"]
    if judgement.findings:
        lines.append(f"findings: {', '.join(judgement.findings)}")
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns as wide as needed, and numbers right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.rjust(width) if _is_number(cell) or not cell else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        ]
        return "  " + "  ".join(shown).rstrip()

    heading = "  ".join(
        name.rjust(width) if any(_is_number(row[column]) for row in rows) else name.ljust(width)
        for column, (name, width) in enumerate(zip(head, widths, strict=True))
    )
    return "\n".join(["  " + heading.rstrip(), *map(line, rows)])


def _amount(figure: float | None, of: str) -> str:
    """`3 broadcasts`, or `broadcasts not known`."""
    return f"{of} not known" if figure is None else f"{figure:g} {of}"


def _known(figure: float | None, form: str = "g") -> str:
    return "not known" if figure is None else format(figure, form)


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()
