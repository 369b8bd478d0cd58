"""What reached isolated CPUs in a trial: the keys of `trial --json`, and a line of the text."""

from collections.abc import Mapping, Sequence
from typing import Any

from kickwatch.detect.figures import attributed
from kickwatch.model import Trial
from kickwatch.outlets.excess import isolated_ipis_above_quiet, per_cpu_above_quiet
from kickwatch.outlets.isolation import isolated_name, isolated_per_container

_DIGITS = 4
_MOST_CPUS = 8  # in the text
_ALL = "start_to_stop"


def isolation_summary(trial: Trial) -> dict[str, Any]:
    """`per_cpu`: requests to each CPU in the churn window above the quiet window's rate, item i is CPU i's.

    `isolated_ipis`: IPIs of every kind to isolated CPUs, also above that rate. None: not counted, or no probe
    attributes requests.
    """
    per_cpu = per_cpu_above_quiet(trial) if attributed(trial) else None
    ipis = isolated_ipis_above_quiet(trial) if trial.isolated_cpus else None
    return {
        "isolated_cpus": list(trial.isolated_cpus),
        "per_cpu": None if per_cpu is None else [round(requests, _DIGITS) for requests in per_cpu],
        "isolated_ipis": None if ipis is None else round(ipis, _DIGITS),
    }


def isolation_text(trial: Trial, summary: dict[str, Any]) -> str:
    """How many requests per container the isolated CPUs got, and which of them most; empty where none is isolated."""
    if not trial.isolated_cpus:
        return ""
    cpus = isolated_name(trial.isolated_cpus)
    each = isolated_per_container([trial])
    if each is None:
        return f"{cpus}: requests not known"
    shown = f"{cpus}: {each:.3g} requests per container above the quiet window{_by_cpu(trial, summary)}"
    ipis, containers = summary["isolated_ipis"], summary["containers"]
    return shown if ipis is None else f"{shown}; {ipis / containers:.3g} IPIs of every kind"


def _by_cpu(trial: Trial, summary: dict[str, Any]) -> str:
    per_cpu, containers = summary["per_cpu"], summary["containers"]
    if per_cpu is None or not containers:
        return ""
    each = {cpu: per_cpu[cpu] / containers for cpu in trial.isolated_cpus if cpu < len(per_cpu)}
    most = sorted(each, key=lambda cpu: (-each[cpu], cpu))[:_MOST_CPUS]
    shown = ", ".join(f"CPU {cpu} {each[cpu]:.3g}" for cpu in sorted(most))
    return f" ({'most: ' if len(each) > len(most) else ''}{shown})" if shown else ""


def own_work_text(isolated: Sequence[int], reached: Mapping[str, Mapping[str, int | None]]) -> str:
    """What reached isolated CPUs while kickwatch worked outside halves and windows, by kind of work; then all of it."""
    parts = [f"{work.replace('_', ' ')} {_amounts(figures)}" for work, figures in reached.items() if work != _ALL]
    whole = f"; from start to stop {_amounts(reached[_ALL])}, halves and windows included" if _ALL in reached else ""
    return f"{isolated_name(isolated)}, outside halves and windows, by any sender: {'; '.join(parts)}{whole}"


def _amounts(figures: Mapping[str, int | None]) -> str:
    known = [f"{amount} {what}" for what, amount in figures.items() if amount is not None]
    return ", ".join(known) or "not known"
