"""Recordings of real kernels as trial records, to test the detectors with.

A recording holds the totals of a window. What it lacks for a trial record is filled in:

- each container or memory cgroup of a window gets an equal share of the window's creation-path broadcasts;
- a loop over bare memory cgroups becomes both a churn of that many "containers" and a canary batch;
- the recorder of the 4.19 loops saw only multi-CPU calls. One wakeup stands for all the single requests that it left
  out, because a window without any single request counts as blind;
- the quiet window is one of the same file, whatever its length.
"""

import json
from pathlib import Path as FilePath
from typing import Any

from kickwatch.attribution.attribute import attribute
from kickwatch.attribution.reasons import BUSY_FUNCS, mask_follows_task
from kickwatch.attribution.stacks import is_slab_mutex_stack, top_of_stack
from kickwatch.detect.figures import creation_broadcasts, merge_cells
from kickwatch.model import (
    CanaryBatch,
    Cell,
    Container,
    ContentionRung,
    Interrupts,
    IpiRung,
    KmemAccounting,
    MutexWait,
    Node,
    Observers,
    Trial,
    Window,
)
from recorded_stacks import infer_func, is_multi_cpu

CAPTURES = FilePath(__file__).parents[1] / "fixtures" / "captures"
LOOPS = ("4.19-slab-patched", "4.19-slab-unpatched")
DOCKER = ("4.19-slab-docker-patched", "4.19-slab-docker-unpatched")
SLUB = "6.18-slub-docker"
NETWORKS = {1: "none", 2: "bridge", 3: "none"}
_WAKEUP = {"func": "sched_ttwu_pending", "stack": [], "requests": 1}
_NANO = 1_000_000_000


def trials() -> dict[str, Trial]:
    """A trial for every window of every recording, keyed by `file: window`."""
    found: dict[str, Trial] = {}
    for file in LOOPS:
        recorded = _load(file)
        for window in recorded["windows"]:
            memcgs = {"idle": 0, "warm": 1}.get(window["window"][:4], recorded["memcgs"])
            cells = _called(window["calls"], recorded["cpus_online"])
            found[f"{file}: {window['window']}"] = _trial(
                file, recorded, cells, memcgs, canary="loop" in window["window"]
            )
    for file in DOCKER:
        recorded = _load(file)
        window = recorded["windows"][0]
        cells = _called(window["multi_cpu_calls"], recorded["cpus_online"])
        cells += [_single(row["stack"], row["count"]) for row in window["single_cpu_requests"]]
        found[f"{file}: churn"] = _trial(file, recorded, cells, recorded["containers"])
    recorded = _load(SLUB)
    for index, window in enumerate(recorded["windows"]):
        name = f"{SLUB}: {window['window'].split(',', 2)[-1].split('(')[0].strip()}"
        cells = [_requested(row) for row in window["requests"]]
        found[name] = _trial(SLUB, recorded, cells, window["containers"], index=index)
    return found


def _load(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CAPTURES / f"{file}.json").read_text())
    return loaded


def _called(rows: list[dict[str, Any]], cpus: int) -> list[Cell]:
    """Multi-CPU calls of 4.19, each to all the other CPUs."""
    return [
        _cell(infer_func(row["stack"]), row["stack"], row.get("calls", row.get("count")), others=cpus - 1)
        for row in rows
    ]


def _single(stack: list[str], requests: int) -> Cell:
    return _cell(infer_func(stack), stack, requests, others=0)


def _requested(row: dict[str, Any]) -> Cell:
    """A request of 6.18. There is one other CPU, so each request of a multi-CPU call is a call."""
    stack = [] if row["func"] in BUSY_FUNCS else [frame.split("+")[0] for frame in row["stack"]]
    return _cell(row["func"], stack, row["requests"], others=1 if is_multi_cpu(row["stack"]) else 0)


def _cell(func: str, stack: list[str], count: int, *, others: int) -> Cell:
    """`others`: CPUs that each of `count` calls went to; 0 for single requests."""
    attributed = attribute(func, stack)
    calls = count if others else 0
    return Cell(
        reason=attributed.reason,
        func=func,
        origin=attributed.origin,
        path=attributed.path,
        requests=count * max(1, others),
        calls=calls,
        broadcasts=0 if mask_follows_task(attributed.reason) else calls,
        stack=tuple(stack),
    )


def _trial(
    file: str, recorded: dict[str, Any], cells: list[Cell], containers: int, *, canary: bool = False, index: int = 0
) -> Trial:
    slub = file == SLUB
    window = recorded["windows"][index]
    merged = merge_cells(cells if slub else [*cells, _requested(_WAKEUP)])
    quiet = recorded["windows"][0] if slub else {}
    return Trial(
        trial_id=f"{index:08x}",
        seed=1,
        order=("quiet", "churn"),
        started_unix_s=1.0,
        node=_node(recorded, NETWORKS.get(index, "none")),
        observers=Observers(
            ipis=IpiRung.CSD if slub else "kprobe", contention=ContentionRung.TRACEPOINT if slub else "none"
        ),
        churn=_window("churn", window, merged, _waits(window)),
        quiet=_window("quiet", quiet, merge_cells(map(_requested, quiet.get("requests", ()))), _waits(quiet)),
        containers=_lives(containers, creation_broadcasts(merged)),
        canary=CanaryBatch(memcgs=containers, duration_ns=_NANO, interrupts=Interrupts(), cells=merged)
        if canary
        else None,
        kmem_accounting=KmemAccounting.ON,
        concurrency=1,
    )


def _node(recorded: dict[str, Any], network: str) -> Node:
    engine, _, runtime = recorded.get("engine", "none, none").partition(", ")
    return Node(
        kernel=recorded["kernel"],
        arch="x86_64",
        cpus_online=recorded["cpus_online"],
        cgroup=recorded.get("cgroup", "v1"),
        engine=engine,
        runtime=runtime,
        network=network,
        boot_id="recorded",
    )


def _window(kind: str, recorded: dict[str, Any], cells: tuple[Cell, ...], waits: tuple[MutexWait, ...]) -> Window:
    duration_ns = int(recorded.get("seconds", 10.0) * _NANO)
    return Window(kind=kind, duration_ns=duration_ns, interrupts=Interrupts(), cells=cells, waits=waits)


def _waits(recorded: dict[str, Any]) -> tuple[MutexWait, ...]:
    rows = [row for row in recorded.get("mutex_waits", ()) if is_slab_mutex_stack(row["stack"])]
    waits = []
    for row in rows:
        attributed = attribute("", row["stack"])
        waits.append(
            MutexWait(
                waiter=top_of_stack(row["stack"]),
                holder="",
                waits=row["waits"],
                wait_ns=0,
                max_wait_ns=0,
                origin=attributed.origin,
                path=attributed.path,
                stack=tuple(row["stack"]),
            )
        )
    return tuple(waits)


def _lives(containers: int, broadcasts: int) -> tuple[Container, ...]:
    each, more = divmod(broadcasts, containers) if containers else (0, 0)
    return tuple(
        Container(index=index, kmem_bytes=500_000, creation_path_broadcasts=each + (index < more))
        for index in range(containers)
    )
