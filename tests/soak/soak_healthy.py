"""1000 healthy containers in each network mode, with a load that starts and stops at random: no alert is allowed.

    usage: soak_healthy.py [--containers N] [--concurrency N] [--seed N] [--design NAME] [--network NAME...]

Needs root, a Docker Engine and stress-ng. Prints a summary per mode and exits with 1 after any alert.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from daemon_log import ALERTS, daemon

from kickwatch.history.record_reader import open_records

LOADS = (
    ["--cpu", "2"],
    ["--vm", "1", "--vm-bytes", "256M"],
    ["--fork", "2"],
    ["--mmap", "1"],
    ["--pipe", "2"],
    ["--dentry", "1"],
)


def load_at_random(seed: int, stop: threading.Event) -> None:
    """Run stress-ng with a random load for a random time, then pause for a random time, until `stop` is set."""
    draw = random.Random(seed)
    while not stop.is_set():
        seconds = draw.randint(3, 20)
        command = ["stress-ng", *draw.choice(LOADS), "--timeout", str(seconds), "--quiet"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None and not stop.is_set():
                time.sleep(0.2)
            running.terminate()
        stop.wait(draw.uniform(0, 15))


def soak(network: str, containers: int, concurrency: int, seed: int, design: str) -> int:
    """Run one network mode; return the number of alerts."""
    stop, events, done, failed = threading.Event(), Counter[str](), 0, 0
    loader = threading.Thread(target=load_at_random, args=(seed, stop))
    loader.start()
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as state:
        settings = (
            f"workload.network={network}",
            f"workload.concurrency={concurrency}",
            "workload.containers_per_trial=25",
            f"trial.design={design}",
            "trial.window_s=1",
            "trial.interval_s=0",
            f"state.directory={state}",
        )
        try:
            with daemon(*settings) as records:
                for record in records:
                    events[record["event"]] += 1
                    if record["event"] in ALERTS:
                        print(f"ALERT: {record}")
                    if record["event"] == "kickwatch.trial_finished":
                        done, failed = done + record["containers"], failed + record["failed"]
                    if done >= containers:
                        break
        finally:
            stop.set()
            loader.join()
        pairs = pairs_of(Path(state) / "history.db")
    alerts = sum(events[name] for name in ALERTS)
    counted = ", ".join(f"{name.removeprefix('kickwatch.')} {count}" for name, count in sorted(events.items()))
    minutes = (time.monotonic() - since) / 60
    print(f"{network}: {done} containers, {failed} failed, {minutes:.1f} min, {alerts} alerts ({counted})")
    print(f"{network}: {pairs}", flush=True)
    return alerts


def pairs_of(history: Path) -> str:
    """How many pairs were compared, how many containers outlasted their half, and which half had more broadcasts."""
    with open_records(history) as records:
        pairs = [pair for record in records for pair in record.trial.pairs]
    known = [(pair.churn.elsewhere, pair.quiet.elsewhere) for pair in pairs]
    signs = Counter(
        (churn > quiet) - (churn < quiet) for churn, quiet in known if churn is not None and quiet is not None
    )
    outlasted = sum(pair.outlasted for pair in pairs)
    share = f"{outlasted} of {len(pairs)} pairs outlasted ({outlasted / max(1, len(pairs)):.1%})"
    return f"{share}; broadcasts elsewhere: more with containers {signs[1]}, equal {signs[0]}, fewer {signs[-1]}"


def main() -> int:
    """Run the modes in turn; 1 after any alert."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--design", default="mixed")
    parser.add_argument("--network", nargs="+", default=["none", "bridge"])
    given = parser.parse_args()
    if shutil.which("stress-ng") is None:
        sys.exit("soak_healthy: stress-ng is missing: apt-get install stress-ng")
    alerts = [soak(network, given.containers, given.concurrency, given.seed, given.design) for network in given.network]
    return 1 if any(alerts) else 0


if __name__ == "__main__":
    sys.exit(main())
