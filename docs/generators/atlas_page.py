"""The atlas: what a container costs on each machine that was measured, from docs/atlas.json."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "atlas.json"
_UNKNOWN = "not known"
_INTRODUCTION = """# Atlas: what a container costs

What one healthy container costs the CPUs on each kernel, cgroup version and runtime that was measured: start, run and
removal, above the time without a container. `make kernels` measures the machines in QEMU ([laboratory](../laboratory.md));
the others are single runs of `kickwatch trial --json`. Compare machines of the same kind with one another: in QEMU without
KVM all CPUs of a guest share one thread. Only x86-64 was measured; for arm64 nothing is known yet.

`tests/lab/atlas.py FILE...` puts what `make kernels` (build/lab/*.json) or `kickwatch trial --json` measured into
docs/atlas.json, from which this page is made.
"""
_COST = """## Interrupts, requests and broadcasts per container

CAL, TLB and RES are the rows of /proc/interrupts (function calls, of which TLB shootdowns are a part; reschedules), over
all CPUs. *Requests* are call-function requests that the probe counted. *Broadcasts* reached at least 90 % of the other
CPUs, by origin; those of the creation path, which make a node `broadcasting`, were 0 everywhere.
"""
_REASONS = """## Requests by reason

Sweeps per container: requests divided by the number of other CPUs. A blank is a reason that did not occur. Where only some
reasons were recorded, the others are {unknown}. [Reasons](reasons.md) explains each.
"""
_PROGRAMS = """## What BPF programs cost before 5.18

On 5.10 each BPF program that is loaded and freed makes about 4 broadcasts: two by `set_memory_ro`, one by `set_memory_x`,
one when it is freed. On cgroup v2 runc loads 4 programs for each container and crun 2; on v1 both load 1. If nothing holds
`cgroup_bpf_enabled_key`, the device program of each container also switches it on and off, with 3 `do_sync_core` each time.
Since programs are packed (x86, 5.18), loading one broadcasts nothing.
"""
_OBSERVED = """## How it was measured

*ms* is the time of a container from its creation to its removal, the canary's figure is CAL minus TLB per bare memory
cgroup, and a *reading* is one complete reading of the counters at the edge of a window.
"""


def page() -> str:
    """The page."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    machines = data["machines"]
    parts = [_INTRODUCTION, _COST, _costs(machines), _REASONS.format(unknown=_UNKNOWN), _reasons(machines)]
    parts += [_PROGRAMS, _programs(data["bpf_programs"]), _OBSERVED, _observed(machines)]
    return "\n".join(parts) + "\n"


def _costs(machines: list[dict[str, Any]]) -> str:
    head = ["machine", "kernel", "cgroup", "CPUs", "runtime", "CAL", "TLB", "RES", "requests", "broadcasts"]
    rows = [
        [
            *(str(one[key]) for key in ("machine", "kernel", "cgroup", "cpus", "runtime")),
            *(_figure(one[key]) for key in ("cal", "tlb", "res", "requests")),
            _broadcasts(one["broadcasts_by_origin"]),
        ]
        for one in machines
    ]
    return table(head, rows)


def _reasons(machines: list[dict[str, Any]]) -> str:
    """A column for each machine whose bill is complete; the reasons known of the others are in a second table."""
    whole = [one for one in machines if one["sweeps_by_reason"] and one["requests"] is not None]
    part = [one for one in machines if one["sweeps_by_reason"] and one["requests"] is None]
    texts = []
    for some in (whole, part):
        totals: dict[str, float] = {}
        for one in some:
            for reason, sweeps in one["sweeps_by_reason"].items():
                totals[reason] = totals.get(reason, 0.0) + sweeps
        order = sorted(totals, key=lambda reason: -totals[reason])
        rows = [
            [one["machine"], *(_figure(one["sweeps_by_reason"][r]) if r in one["sweeps_by_reason"] else "" for r in order)]
            for one in some
        ]
        texts.append(table(["machine", *(f"`{reason}`" for reason in order)], rows))
    return "\n".join(texts)


def _programs(rows: list[dict[str, Any]]) -> str:
    head = ["kernel", "cgroup", "runtime", "programs", "`cgroup_bpf_enabled_key`", "trials x containers", "broadcasts"]
    keys = ("kernel", "cgroup", "runtime", "programs", "cgroup_bpf_enabled_key", "trials", "broadcasts")
    return table(head, [[str(row[key]) for key in keys] for row in rows])


def _observed(machines: list[dict[str, Any]]) -> str:
    head = ["machine", "where", "requests by", "waits by", "containers", "verdict", "ms", "canary", "reading, ms", "boot, s"]
    texts = ("machine", "where", "ipis", "contention", "containers", "verdict")
    figures = ("ms", "canary_cal_minus_tlb", "reading_ms", "boot_s")
    rows = [[*(str(one[key]) for key in texts), *(_figure(one[key]) for key in figures)] for one in machines]
    return table(head, rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _broadcasts(found: dict[str, float] | None) -> str:
    if found is None:
        return _UNKNOWN
    return ", ".join(f"{_figure(count)} {origin}" for origin, count in found.items()) or "0"


def _figure(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:g}"
