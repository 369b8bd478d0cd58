"""Made-up trials as plain JSON objects, which the code of any commit can read: one story, and a long random one.

Needs the standard library alone. The stored digests were computed from these trials: change none of them, add new ones.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

CPUS = 4
OTHERS = CPUS - 1
PERIOD_S = 1380.0
EPOCH_ENDS_S = 1_765_152_000.0  # the common epoch of 90 days that ends in December 2025
CONTAINERS = 10

# Kind of broadcast: reason, origin, path.
KINDS = {
    "created": ("do_sync_core", "memcg", "create"),
    "kicked": ("kick_all_cpus_sync", "slab", "create"),
    "destroyed": ("kick_all_cpus_sync", "slab", "destroy"),
    "balanced": ("flush_tlb_kernel_range", "percpu", "other"),
    "bpf": ("do_flush_tlb_all", "bpf", "other"),
    "elsewhere": ("do_sync_core", "static-key", "other"),
    "unknown": ("do_sync_core", "unknown", "create"),
}


def cell(kind: str, calls: int) -> dict[str, Any]:
    """Broadcasts of one kind."""
    reason, origin, path = KINDS[kind]
    patches = calls if reason == "do_sync_core" and kind != "bpf" else 0
    stack = ["smp_call_function_many_cond", "on_each_cpu_cond_mask", f"{origin}_{path}"]
    return {
        "reason": reason,
        "func": reason,
        "origin": origin,
        "path": path,
        "requests": calls * OTHERS,
        "calls": calls,
        "broadcasts": calls,
        "singles": 0,
        "patches": patches,
        "stack": stack,
    }


def single_requests(reason: str, origin: str, path: str, requests: int) -> dict[str, Any]:
    """Requests to one CPU at a time."""
    return {
        "reason": reason,
        "func": reason,
        "origin": origin,
        "path": path,
        "requests": requests,
        "singles": requests,
        "patches": 0,
        "stack": ["smp_call_function_single", f"{origin}_{path}"],
    }


def waits(path: str, count: int) -> dict[str, Any]:
    """Waits for slab_mutex, 2 ms each."""
    ns = 2_000_000
    return {
        "waiter": "kmem_cache_create",
        "holder": "kworker/0:1",
        "waits": count,
        "wait_ns": count * ns,
        "max_wait_ns": ns,
        "path": path,
    }


def trial(number: int, **given: Any) -> dict[str, Any]:
    """One trial of 10 serial containers. `given` says how it differs from a quiet one on Linux 6.18."""
    lives = given.get("lives", [0] * CONTAINERS)
    failed = given.get("failed", 0)
    churn = {kind: count for kind, count in given.get("churn", {}).items() if count}
    created = sum(lives) + given.get("late", 0)
    if created:
        churn["kicked" if given.get("kicks") else "created"] = created
    quiet = {kind: count for kind, count in given.get("quiet", {}).items() if count}
    duration_ns = given.get("duration_ns", 10_000_000_000)
    return {
        "trial_id": f"{number:08x}",
        "seed": number,
        "order": ["churn", "quiet"] if number % 2 else ["quiet", "churn"],
        "started_unix_s": EPOCH_ENDS_S + (number - 30) * PERIOD_S,
        "node": {
            "kernel": given.get("kernel", "6.18.0"),
            "arch": "x86_64",
            "cpus_online": CPUS,
            "cgroup": "v2",
            "engine": "docker 28.0.1",
            "runtime": "runc 1.2.5",
            "network": "none",
            "boot_id": given.get("boot", "second"),
        },
        "observers": {"ipis": given.get("rung", "csd"), "contention": "tracepoint"},
        "churn": {
            "kind": "churn",
            "duration_ns": duration_ns,
            "interrupts": {"cal": 3000 + number, "tlb": 1000, "res": 2000},
            "cells": [
                single_requests("rcu_exp_handler", "rcu", "other", given.get("rcu", 480 + number % 7)),
                *([single_requests("do_nothing", "slab", "create", given["swept"])] if given.get("swept") else []),
                *(cell(kind, count) for kind, count in sorted(churn.items())),
            ],
            "waits": [waits(path, count) for path, count in sorted(given.get("waits", {}).items())],
            "lost_events": given.get("lost", 0),
            "disturbances": [given["void"]] if given.get("void") else [],
        },
        "quiet": {
            "kind": "quiet",
            "duration_ns": 10_000_000_000,
            "interrupts": {"cal": 100, "tlb": 50, "res": 80},
            "cells": [
                single_requests("rcu_exp_handler", "rcu", "other", 20 + number % 3),
                *(cell(kind, count) for kind, count in sorted(quiet.items())),
            ],
            "waits": [waits("other", given["quiet_waits"])] if given.get("quiet_waits") else [],
        },
        "containers": [
            {
                "index": index,
                "create_ms": 12.5,
                "start_ms": 200.25,
                "wait_ms": 5.0,
                "remove_ms": 10.0,
                "kmem_bytes": 500_000,
                "creation_path_broadcasts": rise if given.get("concurrency", 1) == 1 else None,
                "failure": f"container {index} did not start" if index < failed else "",
            }
            for index, rise in enumerate(lives)
        ],
        "canary": {
            "memcgs": 100,
            "duration_ns": 39_000_000,
            "interrupts": {"cal": given.get("canary_cal", 2), "tlb": 2, "res": 9},
            "cells": [cell("kicked", given["canary"])] if given.get("canary") else [],
            "lost_events": given.get("canary_lost", 0),
        },
        "kmem_accounting": given.get("kmem", "on"),
        "concurrency": given.get("concurrency", 1),
        "unsettled": given.get("unsettled", False),
        "control": {"passed": given.get("control", True), "detail": "made up"},
        "void": given.get("void", ""),
    }


def _changes() -> dict[int, dict[str, Any]]:
    """How the trials of the story differ from quiet ones, by number."""
    old = {"kernel": "5.10.0", "boot": "first", "churn": {"bpf": 40}}  # programs are not packed yet
    found: dict[int, dict[str, Any]] = {number: dict(old) for number in range(22)}
    found[3]["void"] = "suspended"
    found[5]["lives"] = [0, 0, 1, *[0] * 7]
    found[7]["kmem"] = "unknown"
    found[9]["lost"] = 50
    for number in range(10, 14):  # a fault of the creation path, and what comes with it
        found[number]["lives"] = [2] * CONTAINERS
        found[number]["waits"] = {"create": 12, "other": 30}
        found[number]["churn"] = {"bpf": 40, "destroyed": 40}
    for number in range(22, 42):  # another kernel
        found[number] = {"churn": {"elsewhere": 7, "balanced": 40}, "swept": 30 if number < 34 else 0}
        found[number]["quiet_waits"] = 3 if number % 3 else 0
        found[number]["waits"] = {"other": number % 4}
    found[40] |= {"concurrency": 4, "late": 3}
    for number in range(42, 60):  # another boot
        found[number] = {"boot": "third"}
    for number in range(42, 46):
        found[number] |= {"kicks": True, "late": 320, "canary": 100}
    found[46]["rung"], found[46]["canary_cal"] = "counters", 302
    found[47]["control"] = False
    for number in (48, 49):
        found[number]["failed"] = CONTAINERS
    for number in range(50, 54):
        found[number]["churn"] = {"elsewhere": 20, "unknown": 1}
    found[54]["lives"] = [0, 1, 0, 2, *[0] * 6]
    found[55]["unsettled"] = True
    for number in (56, 57):
        found[number]["kmem"] = "off"
    return found


def story() -> Iterator[dict[str, Any]]:
    """60 trials: quiet, a fault and its end, another kernel with other faults, another boot, doubtful trials."""
    for number, given in _changes().items():
        yield trial(number, **given)


def random_story(trials: int = 1620) -> Iterator[dict[str, Any]]:
    """A long one, on which every stream has something to observe: phases of 100 trials, each with its own load."""
    random = Random(12)  # noqa: S311 -- a load, no secret
    for number in range(trials):
        phase = number // 100
        given: dict[str, Any] = {"kernel": f"6.{1 + min(phase, 14) // 3}.0", "boot": f"boot {phase // 2}", "churn": {}}
        if phase < 12:
            _change_at_random(given, phase, random)
        elif phase == 12:  # for the two coins
            given |= {"churn": {"elsewhere": random.randint(8, 30)}, "waits": {"other": random.randint(3, 9)}}
        elif phase == 15:  # all streams at once, after a hundred trials of zeros, and all of it dropped by a boot
            given |= {"late": 40, "kicks": True, "canary": 100, "swept": 60, "waits": {"create": 30, "other": 9}}
            given["churn"] = {"balanced": 40, "bpf": 90, "elsewhere": 12, "destroyed": 40}
        if phase < 14:
            given["duration_ns"] = random.randint(9_000_000_000, 11_000_000_000)
            given["failed"] = random.choice((0, 0, 0, 0, 0, 0, 1, CONTAINERS))
            given["lost"] = random.choice((0,) * 20 + (500,))
            given["void"] = random.choice(("",) * 20 + ("recycled",))
        yield trial(number, **given)


def paired_story(trials: int = 600) -> Iterator[dict[str, Any]]:
    """Two trials of pairs and a whole one, in turn: phases of 60 trials, with and without an effect of containers."""
    random = Random(13)  # noqa: S311 -- a load, no secret
    for number in range(trials):
        phase = number // 60
        background = (0, 0, 0, 0, 1, 2)[: 1 if phase % 5 == 0 else 6]
        effect = (0, 0, 1, 6)[phase % 4]
        pairs = [_pair(random, background, effect) for _ in range(CONTAINERS)]
        given: dict[str, Any] = {"boot": f"boot {phase // 5}", "lost": random.choice((0,) * 30 + (500,))}
        sums = [sum(pair[half]["elsewhere"] for pair in pairs) for half in ("churn", "quiet")]
        given["churn"], given["quiet"] = {"elsewhere": sums[0]}, {"elsewhere": sums[1]}
        one = trial(number, **given)
        yield one if number % 3 == 2 else one | {"pairs": pairs, "isolated_cpus": [3] if phase < 8 else []}


def _pair(random: Random, background: tuple[int, ...], effect: int) -> dict[str, Any]:
    """A pair; every figure has the same background and effect."""
    figures = ("elsewhere", "other_waits", "isolated")
    with_container = random.random() < 0.9 and effect
    return {
        "churn_first": random.random() < 0.5,
        "half_ns": 400_000_000,
        "churn": {name: random.choice(background) + with_container for name in figures},
        "quiet": {name: random.choice(background) for name in figures},
        "outlasted": random.random() < 0.03,
    }


def _change_at_random(given: dict[str, Any], phase: int, random: Random) -> None:
    if phase % 3 == 1:
        given["lives"] = [int(random.random() < 0.3) * random.randint(1, 3) for _ in range(CONTAINERS)]
        given["churn"] |= {"destroyed": random.randint(0, 20), "balanced": random.randint(0, 20)}
    if phase % 4 == 2:
        given["churn"] |= {"bpf": random.randint(0, 30), "elsewhere": random.randint(0, 20)}
        given["quiet"] = {"elsewhere": random.randint(0, 9)}
        given["swept"] = random.randint(0, 60)
    if phase % 5 == 3:
        given |= {"late": random.randint(0, 4), "kicks": random.random() < 0.2, "canary": random.randint(0, 20)}
        given["waits"] = {"create": random.randint(0, 3), "other": random.randint(0, 9)}
        given["quiet_waits"] = random.randint(0, 4)
    if phase % 4 == 3:
        given["rcu"] = random.randint(480, 1400)
