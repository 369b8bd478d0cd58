"""Resident memory of `kickwatch run`: after 200 containers, and whether it is flat from there to 1000.

Starts the daemon with short trials, counts the containers in its log, and reads its VmRSS after each trial: with runc
or crun, without and with metrics, then with Docker and metrics. The daemon gets the variables that the unit sets.
Needs root, a Docker Engine and about 20 minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Engine, metrics, the most MiB after FIRST containers.
CASES = (("oci", False, 40), ("oci", True, 40), ("docker", True, 56))
FLAT_KIB = 1024  # growth by the allocator over 800 containers that still counts as flat
FIRST, LAST = 200, 1000
SETTINGS = {
    "workload.containers_per_trial": 50,
    "workload.concurrency": 4,
    "trial.window_s": 0.5,
    "trial.interval_s": 0,
    "budget.preset": "stress",
    "guard.enabled": "false",
    "log.format": "json",
}


def resident_kib(pid: int) -> int:
    """VmRSS of a process, KiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def main() -> int:
    """Run every case; 1 if one of them misses its promise."""
    return max([measure(*case) for case in CASES])


def measure(engine: str, metrics: bool, promised_mib: int) -> int:
    """Print the sizes of one case; 1 if its promise is missed."""
    print(f"engine {engine}, metrics {'on' if metrics else 'off'}:")
    with tempfile.TemporaryDirectory() as state:
        own = {"engine.kind": engine, "metrics.enabled": str(metrics).lower(), "state.directory": state}
        sizes = sizes_of(SETTINGS | own)
    first = next((kib for count, kib in sizes if count >= FIRST), 0)
    last = sizes[-1][1] if sizes else 0
    kept = 0 < first <= promised_mib * 1024 and last - first <= FLAT_KIB
    print(f"promised: at most {promised_mib} MiB after {FIRST}, and at most {FLAT_KIB // 1024} MiB more by {LAST}")
    print(f"measured: {first / 1024:.1f} MiB, then {(last - first) / 1024:+.2f} MiB: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


def sizes_of(settings: dict[str, object]) -> list[tuple[int, int]]:
    """(containers so far, resident KiB) after each trial, until LAST containers have run."""
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "kickwatch", "run", *words]
    sizes: list[tuple[int, int]] = []
    environment = os.environ | {"PYTHONNODEBUGRANGES": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        containers = 0
        for line in daemon.stderr:
            if not line.startswith("{"):  # why it could not start
                print(line, end="", flush=True)
                continue
            record = json.loads(line)
            if record["event"] == "kickwatch.trial_finished":
                containers += record["containers"]
                sizes.append((containers, resident_kib(daemon.pid)))
                print(f"{containers} containers: {sizes[-1][1] / 1024:.1f} MiB", flush=True)
            if containers >= LAST:
                break
        daemon.terminate()
        daemon.stderr.read()
    return sizes


if __name__ == "__main__":
    sys.exit(main())
