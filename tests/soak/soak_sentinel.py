"""The default preset beside other people's work: what it costs, whether it steps aside, whether others feel it.

    usage: soak_sentinel.py [--minutes N] [--pairs N] [--containers N]

First the daemon runs as `sentinel` for so many minutes; in their last third stress-ng presses the node for a while. Its
CPU time, its resident memory, its pauses and its returns are told. Then containers of somebody else are made in pairs
of blocks, one while the daemon runs and one while it does not, in random order; the ratio of their median times to
create and to start is told with a bootstrap interval. Needs root, a Docker Engine and stress-ng. Exits 1 on a promise
that was missed.
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
IMAGE = "kickwatch-soak-foreign:1"
TICKS = os.sysconf("SC_CLK_TCK")


class Sentinel:
    """`kickwatch run` with its defaults, apart from where its state is."""

    def __init__(self, state: str) -> None:
        """Starts it."""
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
        """User and system time of the daemon and of its children that have ended, and of those that live."""
        total = 0
        for pid in (self.process.pid, *children_of(self.process.pid)):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11 : 15 if pid == self.process.pid else 13])
        return total / TICKS

    def resident_mib(self) -> float:
        """VmRSS."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def await_event(self, name: str, timeout_s: float) -> bool:
        """Whether it came."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if any(event["event"] == name for event in list(self.events)):
                return True
            time.sleep(0.1)
        return False

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        if self.process.wait(60):
            sys.exit(f"the daemon ended with status {self.process.returncode}")


def children_of(pid: int) -> list[int]:
    """Living children of a process."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def watch(minutes: float) -> list[str]:
    """The first part; what was missed."""
    with tempfile.TemporaryDirectory() as state:
        daemon = Sentinel(state)
        time.sleep(60 * minutes * 2 / 3)
        stress = subprocess.Popen(["stress-ng", "--cpu", "8", "--timeout", f"{60 * minutes / 6:.0f}", "--quiet"])
        resident = daemon.resident_mib()
        time.sleep(60 * minutes / 3)
        stress.wait()
        elapsed_s, cpu_s = time.monotonic() - daemon.since, daemon.cpu_s()
        resident = max(resident, daemon.resident_mib())
        events = Counter(event["event"].removeprefix("kickwatch.") for event in daemon.events)
        containers = sum(event["containers"] for event in daemon.events if event["event"] == "kickwatch.trial_finished")
        said = [event for event in daemon.events if event["event"] in {"kickwatch.paused", "kickwatch.resumed"}]
        daemon.stop()
    share = 100 * cpu_s / elapsed_s
    print(f"{elapsed_s / 60:.1f} min: {containers} containers, {dict(events)}")
    print(f"CPU {cpu_s:.1f} s = {share:.2f} % of one (promised {PROMISED_CPU_PCT}), resident {resident:.1f} MiB")
    print("\n".join(f"  {event['at_s'] / 60:5.1f} min {event['event']}: {event}" for event in said))
    missed = [f"CPU {share:.2f} %"] if share > PROMISED_CPU_PCT else []
    missed += [f"resident {resident:.1f} MiB"] if resident > PROMISED_MIB else []
    missed += ["no pause under load"] if not events["paused"] else []
    missed += ["no return after the load"] if events["paused"] and not events["resumed"] else []
    return missed


def block(containers: int) -> list[float]:
    """Seconds that each of so many foreign containers took to be created and started."""
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


def others(pairs: int, containers: int) -> list[str]:
    """The second part; what was missed."""
    draw, ratios = random.Random(1), []
    with tempfile.TemporaryDirectory() as state:
        for pair in range(pairs):
            medians = {}
            for running in draw.sample((True, False), 2):
                daemon = Sentinel(state) if running else None
                if daemon is not None and not daemon.await_event("kickwatch.started", 60):
                    sys.exit("the daemon did not start")
                time.sleep(20)  # the trial of the start, or as long without it
                medians[running] = median(block(containers))
                if daemon is not None:
                    daemon.stop()
            ratios.append(medians[True] / medians[False])
            print(f"pair {pair}: with {medians[True] * 1e3:.0f} ms, without {medians[False] * 1e3:.0f} ms", flush=True)
    resampled = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(10_000))
    low, high = resampled[250], resampled[9750]
    print(
        f"with / without: {median(ratios):.3f} (95 % of resamples {low:.3f} to {high:.3f}; promised {PROMISED_RATIO})"
    )
    return [f"ratio {median(ratios):.3f}"] if median(ratios) > PROMISED_RATIO else []


def main() -> int:
    """Both parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--containers", type=int, default=20)
    given = parser.parse_args()
    if shutil.which("stress-ng") is None:
        sys.exit("soak_sentinel: stress-ng is missing: apt-get install stress-ng")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    missed = watch(given.minutes)
    program = Path(__file__).parents[2] / "daemon/kickwatch/native/bin/workload"
    with tempfile.TemporaryDirectory() as build:
        shutil.copy(program, build)
        dockerfile = 'FROM scratch\nCOPY workload /\nENTRYPOINT ["/workload"]\n'
        Path(build, "Dockerfile").write_text(dockerfile, encoding="ascii")
        subprocess.run(["docker", "build", "-q", "-t", IMAGE, build], check=True, capture_output=True)
    try:
        missed += others(given.pairs, given.containers)
    finally:
        subprocess.run(["docker", "rmi", "-f", IMAGE], check=False, capture_output=True)
    print(f"missed: {', '.join(missed) or 'nothing'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
