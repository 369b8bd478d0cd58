"""`kickwatch run` as fast as it can: started again and again, its log read, its size measured after each trial."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from own_engine import ROOT

SETTLED_WITHIN_S = 180.0
TELLING = (
    "kickwatch.capability_lost",
    "kickwatch.clean_up_failed",
    "kickwatch.history_trouble",
    "kickwatch.budget_unwritten",
    "kickwatch.warm_up_failed",
)
SETTINGS = {
    "engine.socket": f"{ROOT}/docker.sock",
    "engine.timeout_s": 10,
    "budget.preset": "stress",
    "guard.enabled": "false",
    "workload.concurrency": 4,
    "workload.containers_per_trial": 25,
    "trial.window_s": 1,
    "trial.interval_s": 0,
    "service.drain_file": f"{ROOT}/drain",
    "log.format": "json",
}


@dataclass
class Daemon:
    """`kickwatch run`, started again and again on one state directory; its log is read by a thread."""

    state: str
    process: "subprocess.Popen[str] | None" = None
    events: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    containers: int = 0
    odd: list[str] = field(default_factory=list)
    sizes: list[dict[str, int]] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start it."""
        settings = [w for k, v in {**SETTINGS, "state.directory": self.state}.items() for w in ("--set", f"{k}={v}")]
        command = [sys.executable, "-m", "kickwatch", "run", *settings]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        reader = threading.Thread(target=self._read, args=(self.process,))
        reader.start()
        self.readers.append(reader)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                record: dict[str, Any] = json.loads(line)
            except ValueError:
                self.odd.append(line.rstrip())
                continue
            self.events[record["event"]] += 1
            if record["event"] in TELLING:
                self.told[f"{record['event']}: {record.get('what', '')}"[:200]] += 1
            if record["event"] == "kickwatch.trial_finished":
                self.containers += record["containers"]
                self._measure(process.pid)
        process.stderr.close()

    def _measure(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            size = {name: int(status.partition(f"{name}:")[2].split()[0]) for name in ("VmRSS", "Threads")}
            self.sizes.append({**size, "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())), "pid": pid})
        except (OSError, IndexError):
            return

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def settle(self) -> None:
        """Until it has finished a trial: one told to end in its first moments leaves what the one before it left."""
        containers, until = self.containers, time.monotonic() + SETTLED_WITHIN_S
        while self.containers == containers and time.monotonic() < until:
            time.sleep(0.5)

    def stop(self, number: signal.Signals) -> float:
        """Send the signal; returns how long it took to end."""
        assert self.process is not None
        since = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(150)
        if status not in {0, -number}:
            self.odd.append(f"exit status {status} after {number.name}")
        return time.monotonic() - since
