"""Print the laboratory's tables as Markdown from the measurements of all machines: `results.py build/lab`."""

import json
import sys
from pathlib import Path
from typing import Any

_HEAD = (
    *("machine", "kernel", "boot, s", "IPIs", "contention", "blind to"),
    *("containers", "verdict", "ms per container", "CAL", "TLB", "RES", "BPF's broadcasts"),
    *("`rcu_exp_handler`", "`rcu_barrier_handler`", "canary CAL-TLB", "a reading, ms"),
)
_NO_LOSS = "the service's engine"  # of the guest, not of its kernel
_FAULTS = ("kick", "worker", "key", "caches", "slabinfo", "kmem_tcp")


def main(directory: Path) -> None:
    """Print both tables."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(directory.glob("*.json"))}
    measured = {name: machine for name, machine in found.items() if "machine" in machine}  # no files of single tests
    print("Healthy: `kickwatch trial`, engine oci with crun; per container, all CPUs, above the quiet window.\n")
    print(_table(_HEAD, [_healthy(name, machine) for name, machine in measured.items()]))
    print("\nFaults: verdict and reasons; broadcasts per container by reason (origin, path); waits per container.\n")
    print(_table(("machine", *_FAULTS), [_faults(name, machine) for name, machine in measured.items()]))


def _healthy(name: str, measured: dict[str, Any]) -> list[str]:
    trial = measured.get("healthy")
    start = [name, measured["machine"]["kernel"], f"{measured['machine']['boot_s']:.0f}"]
    if trial is None:
        return [*start, *["-"] * (len(_HEAD) - len(start))]
    found = measured.get("doctor", {}).get("capabilities", [])
    missing = [one["name"] for one in found if not one["satisfied"] and one["name"] != _NO_LOSS]
    cost = trial["per_container"]
    return [
        *start,
        trial["observers"]["ipis"],
        trial["observers"]["contention"],
        ", ".join(missing) or "nothing",
        str(trial["containers"]),
        _verdict(trial),
        f"{sum(step['p50'] or 0 for step in trial['latency_ms'].values()):.0f}",
        *(_figure(cost[row]) for row in ("cal", "tlb", "res")),
        _bpf(trial),
        *(_sweeps(trial, reason) for reason in ("rcu_exp_handler", "rcu_barrier_handler")),
        _figure((trial["canary"] or {}).get("cal_minus_tlb_per_memcg")),
        _figure(measured.get("scale", {}).get("sample_ms")),
    ]


def _faults(name: str, measured: dict[str, Any]) -> list[str]:
    return [name, *(_fault(measured.get(fault)) for fault in _FAULTS)]


def _fault(trial: dict[str, Any] | None) -> str:
    if trial is None:
        return "-"
    count = trial["containers"] or 1
    broadcasting = [
        f"{row['broadcasts'] / count:.1f} {row['reason']} ({row['origin']}, {row['path']})"
        for row in trial["bill"]
        if row["broadcasts"] >= count / 2 and row["origin"] != "bpf"  # shown in the other table
    ]
    waits = trial["per_container"]["slab_mutex_waits"]
    return "; ".join([_verdict(trial), *broadcasting, *([f"{waits:.1f} waits"] if waits else []), *trial["findings"]])


def _bpf(trial: dict[str, Any]) -> str:
    broadcasts = sum(row["broadcasts"] for row in trial["bill"] if row["origin"] == "bpf")
    return f"{broadcasts / (trial['containers'] or 1):.1f}"


def _verdict(trial: dict[str, Any]) -> str:
    reasons = f" ({', '.join(trial['reasons'])})" if trial["reasons"] else ""
    return f"{trial['verdict']}{reasons}"


def _sweeps(trial: dict[str, Any], reason: str) -> str:
    if trial["observers"]["ipis"] == "counters":
        return "?"
    return f"{sum(row['sweeps_per_container'] for row in trial['bill'] if row['reason'] == reason):.1f}"


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
