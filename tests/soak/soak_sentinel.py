"""The default preset on a node with other work: its cost, whether it pauses under load, and its effect on others.

    usage: soak_sentinel.py [--minutes N] [--pairs N] [--containers N]

First the daemon runs as `sentinel` for `--minutes`. stress-ng loads the node when the second trial is due, about three
minutes after the start, and for a while longer. Prints the daemon's CPU time, resident memory, pauses and resumptions.
Then foreign containers are made in pairs of blocks, one with the daemon running and one without, in random order.
Prints the ratio of their median times to create and start, with an interval from resampled pairs. The daemon runs no
trial during these blocks, because its budget is spent, as it is for all but half a minute of each hour. Needs root, a
Docker Engine and stress-ng. Exits with 1 if a promise is missed.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

PROMISED_CPU_PCT, PROMISED_MIB, PROMISED_RATIO = 1.0, 56.0, 1.02
LOAD_FROM, LOAD_FOR = 1 / 15, 1 / 6  # fractions of the first part
STARTED_WAIT_S = 3.0
IMAGE = "kickwatch-soak-foreign:1"
TICKS = os.sysconf("SC_CLK_TCK")


class Sentinel:
    """`kickwatch run` with its defaults, except for the state directory."""

    def __init__(self, state: str) -> None:
        """Start it."""
        settings = ("--set", f"state.directory={state}", "--set", "log.format=json")
        command = [sys.executable, "-m", "kickwatch", "run", *settings]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.events: list[dict[str, Any]] = []
        self.since = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with suppress(ValueError):
                self.events.append({**json.loads(line), "at_s": time.monotonic() - self.since})

    def cpu_s(self) -> float:
        """User and system time of the daemon, of its exited children and of its running ones."""
        total = 0
        for pid in (self.process.pid, *children_of(self.process.pid)):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11 : 15 if pid == self.process.pid else 13])
        return total / TICKS

    def resident_mib(self) -> float:
        """VmRSS in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def await_event(self, name: str, timeout_s: float) -> bool:
        """Wait for the event; whether it came in time."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if any(event["event"] == name for event in list(self.events)):
                return True
            time.sleep(0.1)
        return False

    def stop(self) -> None:
        """Send SIGTERM and wait for the exit."""
        self.process.terminate()
        if self.process.wait(60):
            sys.exit(f"the daemon ended with status {self.process.returncode}")


def children_of(pid: int) -> list[int]:
    """Running children of a process."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def watch(minutes: float, state: str) -> list[str]:
    """Run the first part; return the missed promises."""
    daemon, resident = Sentinel(state), 0.0
    time.sleep(60 * minutes * LOAD_FROM)
    load = ["stress-ng", "--cpu", "8", "--timeout", f"{60 * minutes * LOAD_FOR:.0f}", "--quiet"]
    with subprocess.Popen(load):
        resident = daemon.resident_mib()
    while time.monotonic() - daemon.since < 60 * minutes:
        time.sleep(5)
        resident = max(resident, daemon.resident_mib())
    elapsed_s, cpu_s = time.monotonic() - daemon.since, daemon.cpu_s()
    daemon.stop()
    events = Counter(event["event"].removeprefix("kickwatch.") for event in daemon.events)
    containers = sum(event["containers"] for event in daemon.events if event["event"] == "kickwatch.trial_finished")
    share = 100 * cpu_s / elapsed_s
    print(f"{elapsed_s / 60:.1f} min: {containers} containers, {dict(events)}")
    print(f"CPU {cpu_s:.1f} s = {share:.2f} % of one (promised {PROMISED_CPU_PCT}), resident {resident:.1f} MiB")
    for event in daemon.events:
        if event["event"] in {"kickwatch.trial_finished", "kickwatch.paused", "kickwatch.resumed"}:
            print(f"  {event['at_s'] / 60:5.1f} min {event['event']} {event.get('what', '')}", flush=True)
    missed = [f"CPU {share:.2f} %"] if share > PROMISED_CPU_PCT else []
    missed += [f"resident {resident:.1f} MiB"] if resident > PROMISED_MIB else []
    missed += ["no pause under load"] if not events["paused"] else []
    missed += ["no resumption after the load"] if events["paused"] and not events["resumed"] else []
    return missed


def block(containers: int) -> list[float]:
    """Seconds to create and start each of `containers` foreign containers."""
    took = []
    for number in range(containers):
        name = f"foreign-{number}"
        since = time.perf_counter()
        subprocess.run(
            ["docker", "run", "-d", "--network", "none", "--name", name, IMAGE], check=True, capture_output=True
        )
        took.append(time.perf_counter() - since)
        subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)
    return took


def others(pairs: int, containers: int, state: str) -> list[str]:
    """Run the second part; return the missed promises."""
    draw, blocks = random.Random(1), list[dict[bool, list[float]]]()
    for pair in range(pairs):
        took = {}
        for running in draw.sample((True, False), 2):
            daemon = Sentinel(state) if running else None
            if daemon is not None and not daemon.await_event("kickwatch.started", 60):
                sys.exit("the daemon did not start")
            time.sleep(STARTED_WAIT_S)
            took[running] = block(containers)
            if daemon is not None:
                daemon.stop()
        blocks.append(took)
        medians = ", ".join(
            f"{name} {1e3 * median(took[key]):.0f} ms" for key, name in ((True, "with"), (False, "without"))
        )
        print(f"pair {pair}: {medians}", flush=True)
    ratio = ratio_of(blocks)
    resampled = sorted(ratio_of(draw.choices(blocks, k=len(blocks))) for _ in range(2000))
    low, high = resampled[50], resampled[1950]
    print(f"with / without: {ratio:.3f} (95 % of resamples {low:.3f} to {high:.3f}; promised {PROMISED_RATIO})")
    return [f"ratio {ratio:.3f}"] if ratio > PROMISED_RATIO else []


def ratio_of(blocks: list[dict[bool, list[float]]]) -> float:
    """The median time with the daemon divided by that without it, over all blocks."""
    with_it, without = ([second for pair in blocks for second in pair[key]] for key in (True, False))
    return median(with_it) / median(without)


def main() -> int:
    """Run both parts; 1 if a promise is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--containers", type=int, default=40)
    given = parser.parse_args()
    if shutil.which("stress-ng") is None:
        sys.exit("soak_sentinel: stress-ng is missing: apt-get install stress-ng")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    program = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"
    with tempfile.TemporaryDirectory() as build:  # before the daemon starts, because a build is load
        shutil.copy(program, build)
        dockerfile = 'FROM scratch\nCOPY workload /\nENTRYPOINT ["/workload"]\n'
        Path(build, "Dockerfile").write_text(dockerfile, encoding="ascii")
        subprocess.run(["docker", "build", "-q", "-t", IMAGE, build], check=True, capture_output=True)
    try:
        with tempfile.TemporaryDirectory() as state:
            missed = watch(given.minutes, state) + others(given.pairs, given.containers, state)
    finally:
        subprocess.run(["docker", "rmi", "-f", IMAGE], check=False, capture_output=True)
    print(f"missed: {', '.join(missed) or 'nothing'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
