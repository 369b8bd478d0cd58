"""Hours of `stress` on a separate Docker Engine with injected faults: nothing may leak or go unhandled.

    usage: soak_stress.py [--minutes N] [--seed N]

The daemon churns as fast as it can. At random times the engine is restarted, stopped for a while or killed, the daemon
is reloaded, drained, killed with SIGKILL and restarted, its descriptors run out, and stress-ng loads the node. Compared
before and after: containers, images, networks, cgroups, dying memory cgroups, mounts, tracefs instances, BPF programs;
measured during the run: descriptors, threads and resident memory of the daemon. Needs root, dockerd and stress-ng.
Exits with 1 on a leak, on a traceback, or if there are fewer containers than promised.
"""

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from churning import Daemon
from node_state import node, node_without_caches
from own_engine import ROOT, Engine, own_engine

PER_HOUR = 2500  # promised: 5000 containers in two hours
ENDING = ("kill", "restart")


def faults(engine: Engine, daemon: Daemon, draw: random.Random) -> dict[str, Any]:
    """Every fault by name."""

    def engine_restart() -> None:
        engine.stop()
        time.sleep(draw.uniform(0, 10))
        engine.start()

    def engine_hang() -> None:
        engine.send(signal.SIGSTOP)
        time.sleep(draw.uniform(5, 60))
        engine.send(signal.SIGCONT)

    def engine_kill() -> None:
        engine.stop(signal.SIGKILL)
        engine.start()

    def reload_() -> None:
        daemon.send(signal.SIGHUP)

    def drain() -> None:
        (ROOT / "drain").touch()
        time.sleep(draw.uniform(2, 20))
        (ROOT / "drain").unlink()

    def kill() -> None:
        daemon.stop(signal.SIGKILL)
        daemon.start()

    def restart() -> None:
        daemon.stop(signal.SIGTERM)
        daemon.start()

    def no_descriptors() -> None:
        pid = daemon.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (12, before[1]))
        time.sleep(draw.uniform(2, 15))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    def load() -> None:
        kind = draw.choice((["--cpu", "2"], ["--vm", "1", "--vm-bytes", "256M"], ["--fork", "2"], ["--dentry", "1"]))
        subprocess.run(["stress-ng", *kind, "--timeout", "30", "--quiet"], check=False, capture_output=True)

    every = (engine_restart, engine_hang, engine_kill, reload_, drain, kill, restart, no_descriptors, load)
    return {fault.__name__.rstrip("_"): fault for fault in every}


def drawn(by_name: dict[str, Any], draw: random.Random) -> str:
    """The next fault; those that end the daemon are rarer, so that it runs long enough to show growth."""
    names = sorted(by_name)
    return draw.choices(names, [1 if name in ENDING else 3 for name in names])[0]


def soak(minutes: float, seed: int) -> int:
    """Run the soak; return the number of problems."""
    draw, since, done = random.Random(seed), time.monotonic(), Counter[str]()
    with own_engine() as engine, tempfile.TemporaryDirectory() as state:
        before, daemon = node_without_caches(), Daemon(state)
        daemon.start()
        try:
            while time.monotonic() - since < 60 * minutes:
                time.sleep(draw.uniform(20, 60))
                by_name = faults(engine, daemon, draw)
                name = drawn(by_name, draw)
                done[name] += 1
                by_name[name]()
                progress = f"{(time.monotonic() - since) / 60:5.1f} min  {daemon.containers:5d} containers  {name}"
                print(f"{progress}  {daemon.sizes[-1] if daemon.sizes else ''}", flush=True)
            daemon.wait_for_trial()
        finally:
            stopped_s = daemon.stop(signal.SIGTERM)
        for reader in daemon.readers:
            reader.join()
        left = engine.docker("ps", "-aq").stdout.split() + engine.docker("images", "-q").stdout.split()
        cached = node()["dying_memcgs"]
        after = node_without_caches()
    print(f"faults: {dict(done)}")
    print(f"events: {dict(daemon.events)}")
    print("\n".join(f"  {times} x {what}" for what, times in daemon.problems.most_common(30)))
    print(f"stopped within {stopped_s:.1f} s; dying memcgs before the page cache was dropped: {cached}")
    return problems(daemon, before, after, left, minutes)


def problems(daemon: Daemon, before: dict[str, Any], after: dict[str, Any], left: list[str], minutes: float) -> int:
    """Print all figures; return the number of problems."""
    wrong = [f"unhandled: {line}" for line in daemon.unhandled]
    wrong += [f"left in the engine: {one}" for one in left]
    for key, value in before.items():
        grown = after[key] - value if isinstance(value, int) else sorted(set(after[key]) - set(value))
        print(f"{key}: before {value if isinstance(value, int) else len(value)}, grown by {grown}")
        if grown and not (isinstance(grown, int) and (grown < 0 or (key == "dying_memcgs" and grown <= 50))):
            wrong.append(f"leaked: {key}: {grown}")
    wrong += growth(daemon)
    if daemon.containers < PER_HOUR * minutes / 60:
        wrong.append(f"only {daemon.containers} containers in {minutes:.0f} min")
    print(f"{daemon.containers} containers, {len(wrong)} problems")
    print("\n".join(wrong))
    return len(wrong)


def growth(daemon: Daemon) -> list[str]:
    """For each daemon process: compare descriptors, threads and memory at its end with those of early trials."""
    wrong = []
    for pid in dict.fromkeys(size["pid"] for size in daemon.sizes):
        life = [size for size in daemon.sizes if size["pid"] == pid]
        if len(life) < 12:
            continue
        early, late = life[5:10], life[-5:]
        for key, most in (("descriptors", 8), ("Threads", 4), ("VmRSS", 4096)):
            first, last = min(size[key] for size in early), min(size[key] for size in late)
            if last - first > most:
                wrong.append(f"grown in one process over {len(life)} trials: {key} {first} -> {last}")
    peak = {key: max((size[key] for size in daemon.sizes), default=0) for key in ("VmRSS", "descriptors", "Threads")}
    print(f"at most {peak['VmRSS'] / 1024:.1f} MiB, {peak['descriptors']} descriptors, {peak['Threads']} threads")
    return wrong


def main() -> int:
    """Parse the arguments and run the soak; 1 if there are problems."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for program in ("stress-ng", "dockerd"):
        if shutil.which(program) is None:
            sys.exit(f"soak_stress: {program} is missing: apt-get install stress-ng docker.io")
    return 1 if soak(given.minutes, given.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
