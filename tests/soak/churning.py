"""`kickwatch run` without pauses: start it repeatedly, read its log, measure its size after each trial."""

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

TRIAL_WITHIN_S = 180.0
PROBLEM_EVENTS = (
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
    """`kickwatch run`, started repeatedly with the same state directory; a thread reads its log."""

    state: str
    process: "subprocess.Popen[str] | None" = None
    events: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    containers: int = 0
    unhandled: list[str] = field(default_factory=list)
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
                self.unhandled.append(line.rstrip())
                continue
            self.events[record["event"]] += 1
            if record["event"] in PROBLEM_EVENTS:
                self.problems[f"{record['event']}: {record.get('what', '')}"[:200]] += 1
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
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait_for_trial(self) -> None:
        """Wait for a trial. Stopped right after its start, it would not remove its predecessor's leftovers."""
        containers, until = self.containers, time.monotonic() + TRIAL_WITHIN_S
        while self.containers == containers and time.monotonic() < until:
            time.sleep(0.5)

    def stop(self, number: signal.Signals) -> float:
        """Send the signal; return the seconds until it has exited."""
        assert self.process is not None
        since = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(150)
        if status not in {0, -number}:
            self.unhandled.append(f"exit status {status} after {number.name}")
        return time.monotonic() - since
