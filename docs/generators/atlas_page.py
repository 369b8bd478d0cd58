"""The atlas: what a container costs on each machine that was measured, from docs/atlas.json."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "atlas.json"
_UNKNOWN = "not known"
_INTRODUCTION = """# Atlas: what a container costs

What one healthy container costs the CPUs on each kernel, cgroup version and runtime that was measured: start, run and
removal, above the time without a container. `make kernels` measures the machines in QEMU
([laboratory](../laboratory.md)); the others are single runs of `kickwatch trial --json`. Compare machines of the same
kind with one another: in QEMU without KVM all CPUs of a guest share one thread, and a busy machine sends fewer requests
than an idle one, since a CPU that runs anyway needs no interrupt to wake it up. arm64 has no row of TLB shootdowns, and
each remote wakeup there is a function call interrupt: its CAL does not compare with that of x86-64.

`tests/lab/atlas.py FILE...` puts what `make kernels` (build/lab/*.json) or `kickwatch trial --json` measured into
docs/atlas.json, from which this page is made.
"""
_COST = """## Interrupts, requests and broadcasts per container

The name of a machine has the kernel's series, the cgroup version and the number of CPUs. CAL, TLB and RES are the
rows of /proc/interrupts (function calls, of which TLB shootdowns are a part; reschedules), over all CPUs.
*Requests* are call-function requests that the probe counted. *Broadcasts* reached at least 90 % of the other CPUs,
by origin; those of the creation path, which make a node `broadcasting`, were 0 everywhere.
"""
_REASONS = """## Requests by reason

Sweeps per container: requests divided by the number of other CPUs. The rate without containers is subtracted, so
noise can make a figure negative. A blank is a reason that did not occur. For the machines of the second table only
these two reasons were recorded; the others are {unknown}. [Reasons](reasons.md) explains each.
"""
_PROGRAMS = """## What BPF programs cost before 5.18, and on arm64

On x86-64 5.10 each BPF program that is loaded and freed makes about 4 broadcasts: two by `set_memory_ro`, one by
`set_memory_x`, one when it is freed; occasionally one fewer, if nothing is left to purge. On cgroup v2 runc loads 4
programs for each container and crun 2; on v1 both load 1. If nothing holds `cgroup_bpf_enabled_key`, the device
program of each container also switches it on and off, with 3 `do_sync_core` each time; it stays on as long as a
unit has `IPAddressDeny=` or `DeviceAllow=` (Debian's journald, udevd and logind). Since programs are packed (x86,
5.18), loading one broadcasts nothing on x86-64.

On arm64 each program kicks all CPUs (`kick_all_cpus_sync`) to this day: on 5.10 and 6.1 once when it is loaded, on 6.12
twice when it is loaded and once when it is freed, on 7.2 once each.
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
    head = ["machine", "engine or runtime", "broadcasts", "requests", "CAL", "TLB", "RES"]
    rows = [
        [
            one["machine"],
            one["runtime"],
            _broadcasts(one["broadcasts_by_origin"]),
            *(_figure(one[key]) for key in ("requests", "cal", "tlb", "res")),
        ]
        for one in machines
    ]
    return table(head, rows)


def _reasons(machines: list[dict[str, Any]]) -> str:
    """A table of the machines whose bill is complete, and one of those of which some reasons are known."""
    known = [one for one in machines if one["sweeps_by_reason"]]
    whole = [one for one in known if one["requests"] is not None]
    return "\n".join(_sweeps(some) for some in (whole, [one for one in known if one not in whole]) if some)


def _sweeps(machines: list[dict[str, Any]]) -> str:
    """Reasons by machine, those with the most requests first; on its side if there are more machines than reasons."""
    totals: dict[str, float] = {}
    for one in machines:
        for reason, sweeps in one["sweeps_by_reason"].items():
            totals[reason] = totals.get(reason, 0.0) + sweeps
    reasons = sorted(totals, key=lambda reason: -totals[reason])
    cells = [["reason", *(one["machine"] for one in machines)]]
    for reason in reasons:
        found = (one["sweeps_by_reason"].get(reason) for one in machines)
        cells.append([f"`{reason}`", *("" if sweeps is None else _figure(sweeps) for sweeps in found)])
    if len(machines) > len(reasons):
        cells = [list(column) for column in zip(*cells, strict=True)]
        cells[0][0] = "machine"
    return table(cells[0], cells[1:])


def _programs(rows: list[dict[str, Any]]) -> str:
    head = ["kernel", "cgroup", "runtime", "programs", "`cgroup_bpf_enabled_key`", "trials x containers", "broadcasts"]
    keys = ("kernel", "cgroup", "runtime", "programs", "cgroup_bpf_enabled_key", "trials", "broadcasts")
    return table(head, [[str(row[key]) for key in keys] for row in rows])


def _observed(machines: list[dict[str, Any]]) -> str:
    head = ["machine", "where", "kernel", "architecture", "requests by", "waits by", "containers", "verdict"]
    texts = ("machine", "where", "kernel", "architecture", "ipis", "contention", "containers", "verdict")
    figures = ("ms", "canary_cal_minus_tlb", "reading_ms", "boot_s")
    rows = [[*(str(one[key]) for key in texts), *(_figure(one[key]) for key in figures)] for one in machines]
    return table([*head, "ms", "canary", "reading, ms", "boot, s"], rows)


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
