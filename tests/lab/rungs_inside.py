"""Runs in a guest: arms both rungs of the IPI ladder, makes real events, and prints what each rung counted as JSON.

Run as root with kickwatch's Python: `rungs_inside.py` with a task (see `main`) and a fraction of the work. The result
is the line that begins with `RUNGS `, because a console may print other lines.
"""

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.capabilities import examine
from kickwatch.native.driver import Helper
from kickwatch.node import kernel
from kickwatch.node.isolation import isolated_cpus
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_calls import KERNEL
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.control import control_cpus, positive_control
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.layouts import CELL_KEY
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import INDEX
from kickwatch.observe.request_cells import by_target
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.task_layout import learn_comm_offset
from membarrier_storm import membarrier_storm

TRACEFS = Path("/sys/kernel/tracing")
SHARE = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0  # fraction of the work; many CPUs are slow in a guest
TOGGLES = max(1, int(151 * SHARE))
BARRIERS, SINGLES = 499, 211
MEMCGS = max(1, int(400 * SHARE))
READERS, READS = 4, 120
SAMPLES = 21
ARM64 = os.uname().machine == "aarch64"
PATCHING = "kick_all_cpus_sync" if ARM64 else "do_sync_core"  # what a static key sends
REASONS = {"static keys": PATCHING, "membarriers": "ipi_mb", "shootdowns": "flush_tlb_func"}
SHOT = max(1, int(20 * SHARE))  # shootdowns at least
# One thread computes on CPU 1 without the interpreter's lock; the other frees pages on CPU 0: a shootdown each.
SHOOTDOWNS = f"""
import hashlib, mmap, os, threading, time
def compute():
    os.sched_setaffinity(0, [1])
    hashlib.sha256(bytes({int(SHARE * (100 << 20))}))
other = threading.Thread(target=compute)
other.start()
os.sched_setaffinity(0, [0])
pages = mmap.mmap(-1, 1 << 20)
while other.is_alive():
    pages[0] = 1
    pages.madvise(mmap.MADV_DONTNEED)
    time.sleep(0.0005)
"""


def flip_static_keys() -> None:
    """Switch a tracepoint on and off in a new tracefs instance."""
    instance = TRACEFS / "instances/kickwatch-rungs"
    instance.mkdir(exist_ok=True)
    switch = instance / "events/sched/sched_switch/enable"
    for _ in range(TOGGLES):
        switch.write_text("1")
        switch.write_text("0")
    instance.rmdir()


async def make_barriers() -> None:
    """Membarriers among the helper's threads, to many CPUs and to one."""
    cpus = ",".join(map(str, control_cpus(isolated_cpus())))
    async with Helper(["barriers", str(BARRIERS), str(SINGLES), cpus]) as helper:
        await helper.ask("many", 120)
        if helper.ready.fields.get("rseq") == "yes":
            await helper.ask("single", 120)


def make_memcgs() -> None:
    """Bare memory cgroups, each entered by a process that touches files."""
    root = Path("/sys/fs/cgroup")
    root = root / "memory" if (root / "memory").is_dir() else root
    control = root / "cgroup.subtree_control"
    if control.exists():
        control.write_text("+memory")
    for number in range(MEMCGS):
        group = root / f"kickwatch-rungs-{number}"
        group.mkdir()
        if number % 20 == 0:
            join = f"echo $$ >{group}/cgroup.procs; : >/tmp/kickwatch-rungs; rm /tmp/kickwatch-rungs"
            subprocess.run(["sh", "-c", join], check=True)
        group.rmdir()


async def waits() -> dict[str, Any]:
    """Both rungs of the contention ladder over the same waits: tasks that read /proc/slabinfo."""
    symbols = await Symbols.load(Path("/proc"))
    comm_offset = await asyncio.to_thread(learn_comm_offset)
    observers = [MutexObserver.arm(symbols, comm_offset), ContentionObserver.arm(symbols, comm_offset)]
    try:
        before = [observer.read() for observer in observers]
        read = f"for i in $(seq {READS}); do cat /proc/slabinfo; done >/dev/null"
        readers = [await asyncio.create_subprocess_exec("sh", "-c", read) for _ in range(READERS)]
        for reader in readers:
            await reader.wait()
        after = [observer.read() for observer in observers]
        return {
            observer.RUNG: {
                "places": observer.places,
                "waits": sum(wait.waits for wait in found),
                "wait_ms": sum(wait.wait_ns for wait in found) / 1e6,
                "by": sorted({f"{wait.waiter} {wait.origin}" for wait in found}),
                "unnamed": sum(wait.waits for wait in found if wait.holder.startswith("(")),
                "stack": found[0].stack[:6] if found else (),
                "health": [b - a for a, b in zip(early.health, late.health, strict=True)],
            }
            for observer, early, late in zip(observers, before, after, strict=True)
            for found in [observer.waits(early, late)]
        }
    finally:
        for observer in observers:
            observer.close()


async def by_address() -> dict[str, Any]:
    """Kprobes attached by address alone, as where the kernel refuses a name: what they count, and callers in stacks."""
    attach = BpfObject.attach_kprobe

    def without_name(probe: BpfObject, program: str, _function: str, addresses: Sequence[int], **options: bool) -> None:
        attach(probe, program, "no.such.function", addresses, **options)

    with patch.object(BpfObject, "attach_kprobe", without_name):
        observatory = await Observatory.open()
    try:
        requests, contention = observatory.requests, observatory.contention
        assert isinstance(requests, KprobeObserver), observatory.losses
        before = await observatory.sample()
        outcome = await positive_control(observatory)
        await asyncio.to_thread(flip_static_keys)
        read = f"for i in $(seq {READS}); do cat /proc/slabinfo; done >/dev/null"
        readers = [await asyncio.create_subprocess_exec("sh", "-c", read) for _ in range(READERS)]
        for reader in readers:
            await reader.wait()
        await observatory.between_windows()
        after = await observatory.sample()
        waits = contention.waits(before.contention, after.contention) if contention is not None else ()
        return {
            "places": [requests.places, contention.places if contention is not None else ""],
            "passed": outcome.passed,
            "detail": outcome.detail,
            "cells": cells(requests, before.requests, after.requests),
            "waits": sum(wait.waits for wait in waits),
            "waiters": sorted({wait.waiter for wait in waits}),
            "stack": waits[0].stack[:6] if waits else (),
            "callers": callers(requests, after.requests),
            "patching": PATCHING,
        }
    finally:
        observatory.close()


async def storm() -> dict[str, Any]:
    """The control on two CPUs beside a process that calls membarrier on the others all the time."""
    observatory = await Observatory.open()
    first, second, *others = control_cpus()
    try:
        with membarrier_storm(others):
            before = await observatory.sample()
            outcome = await positive_control(observatory, (first, second))
            after = await observatory.sample()
        assert observatory.requests is not None
        barriers = cells(observatory.requests, before.requests, after.requests)["ipi_mb"]["calls"]
        ours = outcome.calls.seen if outcome.calls is not None else 0
        return {"passed": outcome.passed, "detail": outcome.detail, "others": barriers - ours}
    finally:
        observatory.close()


def callers(observer: KprobeObserver, sample: Any) -> dict[str, Any]:
    """Of the stacks in a sample: how many have their caller unaided, and those that do not show it once.

    It is the frame after the probed function, or the first one: where two stacks share a hash bucket, the second is
    kept without the probed function, sometimes without the caller, too (STACK_ID of probe.h).
    """
    found = {"stacks": 0, "unaided": 0}
    wrong = []
    for key in sample.totals:
        func, stack_id, _, caller = CELL_KEY.packed.unpack(key)
        value = observer.probe.map("stacks").get(INDEX.pack(stack_id)) if caller and stack_id >= 0 else None
        if value is None:
            continue
        addresses = memoryview(value).cast("Q").tolist()
        shown = observer.names.name(key, observer.symbols).stack
        found["stacks"] += 1
        place, name = int(shown[0] in observer.names.probed), observer.symbols.resolve(caller)
        found["unaided"] += caller in addresses[:2]
        if shown[place] != name or shown[place] == shown[place + 1]:
            wrong.append([observer.symbols.resolve(func), shown[:4], name])
    return found | {"wrong": wrong}


async def agree() -> dict[str, Any]:
    """What both rungs count for the same events, step by step. The last two CPUs count as isolated."""
    symbols = await Symbols.load(Path("/proc"))
    online = kernel.cpus_online()
    isolated = kernel.online()[-2:]
    observers: list[RequestObserver] = [KprobeObserver.arm(symbols, online, isolated=isolated)]
    try:
        observers.append(CsdObserver.arm(symbols, online, isolated=isolated))
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "static keys": lambda: asyncio.to_thread(flip_static_keys),
            "membarriers": make_barriers,
            "memcgs": lambda: asyncio.to_thread(make_memcgs),
        }
        if not ARM64:  # which needs no IPI for a shootdown
            shoot = [sys.executable, "-c", SHOOTDOWNS]
            steps["shootdowns"] = lambda: asyncio.to_thread(subprocess.run, shoot, check=True)
        result: dict[str, Any] = {
            "places": observers[0].places,
            "cpus_online": online,
            "isolated": isolated,
            "of": {"static keys": PATCHING, "membarriers": "ipi_mb"}
            | ({} if ARM64 else {"shootdowns": "flush_tlb_func"}),
            "verified": verified(observers[0]),
            "made": {  # minimum: a toggle makes several calls
                "static keys": TOGGLES,
                "membarriers": max(1, int(BARRIERS * SHARE)),  # with many CPUs few threads run
                "singles": SINGLES,
                "shootdowns": SHOT,
            },
        }
        for name, step in steps.items():
            before = [observer.read() for observer in observers]
            await step()
            after = [observer.read() for observer in observers]
            result[name] = {
                observer.RUNG: {
                    "cells": cells(observer, early, late),
                    "targets": by_target(early, late, max(observer.possible)),
                    "unplaced": late.unplaced - early.unplaced,
                    "health": [b - a for a, b in zip(early.health, late.health, strict=True)],
                    "misses": late.recursion_misses - early.recursion_misses,
                }
                for observer, early, late in zip(observers, before, after, strict=True)
            }
        return result
    finally:
        for observer in observers:
            observer.close()


def verified(observer: RequestObserver) -> dict[str, int]:
    """Instructions that the verifier processed for each program; 0 before 5.16, which does not report it."""
    found = {}
    for program in observer.PROGRAMS:
        info = ctypes.create_string_buffer(232)
        KERNEL.program_info(observer.probe.program_fd(program), info)
        found[program] = int.from_bytes(info[216:220], sys.byteorder)  # bpf_prog_info.verified_insns
    return found


def cells(observer: RequestObserver, before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """Per reason: its figures, the isolated CPUs that it reached, and its requests by origin and path."""
    sums: dict[str, Counter[str]] = {}
    divided: dict[str, Counter[str]] = {}
    hit: dict[str, set[int]] = {}
    for cell in observer.cells(before, after):
        counted = {"requests": cell.requests, "calls": cell.calls, "broadcasts": cell.broadcasts}
        sums.setdefault(cell.reason, Counter()).update(counted, isolated=cell.isolated or 0)
        hit.setdefault(cell.reason, set()).update(cell.isolated_cpus)
        divided.setdefault(cell.reason, Counter())[f"{cell.origin}/{cell.path}"] += cell.requests
    return {
        reason: {**counts, "by": dict(divided[reason]), "isolated_cpus": sorted(hit[reason])}
        for reason, counts in sums.items()
    }


async def scale() -> dict[str, Any]:
    """Duration of a sample at a window's edge; counts of flipped keys with all CPUs and with the last one offline."""
    observatory = await Observatory.open()
    last = Path(f"/sys/devices/system/cpu/cpu{max(os.sched_getaffinity(0))}/online")
    try:
        assert observatory.requests is not None
        result: dict[str, Any] = {"sample_ms": await sample_ms(observatory), "cpus": {}}
        for online in ("1", "0")[: observatory.cpus_online - 1]:  # of two CPUs none can go offline
            await asyncio.to_thread(last.write_text, online)
            await observatory.between_windows()
            before = observatory.requests.read()
            await asyncio.to_thread(flip_static_keys)
            after = observatory.requests.read()
            found = cells(observatory.requests, before, after)
            all_of_them = sum(cell["requests"] for cell in found.values())
            by_cpu = by_target(before, after, observatory.requests.last_online)
            result["cpus"][observatory.cpus_online] = found[PATCHING] | {"all": all_of_them, "by_cpu": by_cpu}
        return result
    finally:
        await asyncio.to_thread(last.write_text, "1")
        observatory.close()


async def sample_ms(observatory: Observatory) -> float:
    """The median duration of a sample."""
    took = []
    for _ in range(SAMPLES):
        began = perf_counter()
        await observatory.sample()
        took.append(1e3 * (perf_counter() - began))
    return median(took)


async def control() -> dict[str, Any]:
    """The rungs that the daemon selects, its positive control, and the result of `doctor`."""
    observatory = await Observatory.open()
    try:
        outcome = await positive_control(observatory)
        result = {
            "ipis": observatory.observers.ipis,
            "contention": observatory.observers.contention,
            "places": observatory.requests.places if observatory.requests is not None else "",
            "losses": observatory.losses,
            "passed": outcome.passed,
            "detail": outcome.detail,
            "cpus": outcome.cpus,
            "slab_mutex": observatory.slab_mutex_known,
            "owner": observatory.senders_known,
        }
    finally:
        observatory.close()
    found = await examine(Config(), control=False)
    doctor = {capability.name: [capability.satisfied, capability.detail] for capability in found}
    return result | {"doctor": doctor}


def main() -> None:
    """Run the task of the command line and print one line."""
    tasks = {task.__name__: task for task in (agree, by_address, control, scale, storm, waits)}
    try:
        result: dict[str, Any] = asyncio.run(tasks[sys.argv[1]]())
    except (KickwatchError, OSError, subprocess.SubprocessError) as error:
        result = {"error": str(error), "trace": traceback.format_exc()}
    result["kernel"] = os.uname().release
    sys.stdout.write(f"\nRUNGS {json.dumps(result)}\n")


if __name__ == "__main__":
    main()
