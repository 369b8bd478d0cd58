"""In a guest: both rungs of the IPI ladder armed at once and fed with real events; what each counted, as JSON.

Run as root with kickwatch's own Python: `rungs_inside.py` with `agree`, `control`, `scale` or `waits`, and a share of
the work. The answer is the line that begins with `RUNGS `: a console may say other things around it.
"""

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.capabilities import examine
from kickwatch.native.driver import Helper
from kickwatch.node import kernel
from kickwatch.observe.bpf import library
from kickwatch.observe.contention import ContentionObserver, learn_comm_offset
from kickwatch.observe.control import control_cpus, positive_control
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.symbols import Symbols

TRACEFS = Path("/sys/kernel/tracing")
SHARE = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0  # of the work: many CPUs take long in a guest
TOGGLES = max(1, int(151 * SHARE))
BARRIERS, SINGLES = 499, 211
MEMCGS = max(1, int(400 * SHARE))
READERS, READS = 4, 120
SAMPLES = 21
SHOT = max(1, int(20 * SHARE))  # shootdowns at least
# One thread computes on CPU 1 outside the interpreter's lock; the other gives pages back on CPU 0: a shootdown each.
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
    """A tracepoint on and off in a tracefs instance of our own."""
    instance = TRACEFS / "instances/kickwatch-rungs"
    instance.mkdir(exist_ok=True)
    switch = instance / "events/sched/sched_switch/enable"
    for _ in range(TOGGLES):
        switch.write_text("1")
        switch.write_text("0")
    instance.rmdir()


async def make_barriers() -> None:
    """Membarriers among our own threads, to many CPUs and to one."""
    cpus = ",".join(map(str, control_cpus()))
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


async def agree() -> dict[str, Any]:
    """Both rungs over the same events, step by step."""
    symbols = await Symbols.load(Path("/proc"))
    online = kernel.cpus_online()
    observers: list[RequestObserver] = [KprobeObserver.arm(symbols, online)]
    try:
        observers.append(CsdObserver.arm(symbols, online))
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "static keys": lambda: asyncio.to_thread(flip_static_keys),
            "membarriers": make_barriers,
            "memcgs": lambda: asyncio.to_thread(make_memcgs),
            "shootdowns": lambda: asyncio.to_thread(subprocess.run, [sys.executable, "-c", SHOOTDOWNS], check=True),
        }
        told: dict[str, Any] = {
            "places": observers[0].places,
            "cpus_online": online,
            "verified": verified(observers[0]),
            "made": {  # at least: a toggle makes several calls
                "static keys": TOGGLES,
                "membarriers": max(1, int(BARRIERS * SHARE)),  # of threads that hardly run on many CPUs few are asked
                "singles": SINGLES,
                "shootdowns": SHOT,
            },
        }
        for name, step in steps.items():
            before = [observer.read() for observer in observers]
            await step()
            after = [observer.read() for observer in observers]
            told[name] = {
                observer.RUNG: {
                    "cells": cells(observer, early, late),
                    "health": [b - a for a, b in zip(early.health, late.health, strict=True)],
                    "misses": late.recursion_misses - early.recursion_misses,
                }
                for observer, early, late in zip(observers, before, after, strict=True)
            }
        return told
    finally:
        for observer in observers:
            observer.close()


def verified(observer: RequestObserver) -> dict[str, int]:
    """Instructions that the verifier went through for each program; 0 before 5.16, which does not say."""
    found = {}
    for program in observer.PROGRAMS:
        info = ctypes.create_string_buffer(232)
        descriptor = library().lib.bpf_program__fd(observer.probe._program(program))
        library().lib.bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(ctypes.c_uint32(len(info))))
        found[program] = int.from_bytes(info[216:220], sys.byteorder)  # bpf_prog_info.verified_insns
    return found


def cells(observer: RequestObserver, before: Any, after: Any) -> dict[str, dict[str, Any]]:
    """By reason: requests, calls, broadcasts; and how its requests divide by origin and path."""
    sums: dict[str, Counter[str]] = {}
    divided: dict[str, Counter[str]] = {}
    for cell in observer.cells(before, after):
        counted = {"requests": cell.requests, "calls": cell.calls, "broadcasts": cell.broadcasts}
        sums.setdefault(cell.reason, Counter()).update(counted)
        divided.setdefault(cell.reason, Counter())[f"{cell.origin}/{cell.path}"] += cell.requests
    return {reason: {**counts, "by": dict(divided[reason])} for reason, counts in sums.items()}


async def scale() -> dict[str, Any]:
    """What a reading at a window's edge takes; what flipped keys are with all CPUs, and with the last one offline."""
    observatory = await Observatory.open()
    last = Path(f"/sys/devices/system/cpu/cpu{max(os.sched_getaffinity(0))}/online")
    try:
        assert observatory.requests is not None
        told: dict[str, Any] = {"sample_ms": await sample_ms(observatory), "cpus": {}}
        for online in ("1", "0")[: observatory.cpus_online - 1]:  # of two CPUs none can be spared
            await asyncio.to_thread(last.write_text, online)
            await observatory.between_windows()
            before = observatory.requests.read()
            await asyncio.to_thread(flip_static_keys)
            found = cells(observatory.requests, before, observatory.requests.read())
            told["cpus"][observatory.cpus_online] = found["do_sync_core"]
        return told
    finally:
        await asyncio.to_thread(last.write_text, "1")
        observatory.close()


async def sample_ms(observatory: Observatory) -> float:
    """The median of some."""
    took = []
    for _ in range(SAMPLES):
        began = perf_counter()
        await observatory.sample()
        took.append(1e3 * (perf_counter() - began))
    return median(took)


async def control() -> dict[str, Any]:
    """The daemon's own way up the ladder, its positive control, and what `doctor` says."""
    observatory = await Observatory.open()
    try:
        outcome = await positive_control(observatory)
        told = {
            "ipis": observatory.observers.ipis,
            "contention": observatory.observers.contention,
            "places": observatory.requests.places if observatory.requests is not None else "",
            "losses": observatory.losses,
            "passed": outcome.passed,
            "detail": outcome.detail,
            "cpus": outcome.cpus,
            "slab_mutex": observatory.slab_mutex_known,
        }
    finally:
        observatory.close()
    found = await examine(Config(), control=False)
    doctor = {capability.name: [capability.satisfied, capability.detail] for capability in found}
    return told | {"doctor": doctor}


def main() -> None:
    """Do what the command line names and print one line."""
    task = {"agree": agree, "control": control, "scale": scale, "waits": waits}[sys.argv[1]]
    try:
        told: dict[str, Any] = asyncio.run(task())
    except (KickwatchError, OSError, subprocess.SubprocessError) as error:
        told = {"error": str(error), "trace": traceback.format_exc()}
    told["kernel"] = os.uname().release
    sys.stdout.write(f"\nRUNGS {json.dumps(told)}\n")


if __name__ == "__main__":
    main()
