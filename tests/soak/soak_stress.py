"""Hours of `stress` on a Docker Engine of its own, with faults thrown in: nothing may leak, nothing may go unhandled.

    usage: soak_stress.py [--minutes N] [--seed N]

The daemon churns as fast as it can while, at random moments, the engine is restarted, stopped for a while or killed,
the daemon is reloaded, drained, killed with SIGKILL and started again, its descriptors run out, and stress-ng loads the
node. Before and after: containers, images, networks, cgroups, dying memory cgroups, mounts, tracefs instances, BPF
programs; during: descriptors, threads and resident memory of the daemon. Needs root, dockerd and stress-ng. Exits 1 on
a leak, on a traceback, or where fewer containers were made than promised.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path("/run/kickwatch-soak")
PER_HOUR = 2500  # promised: 5000 containers in two hours
SETTLED_S = 20.0
ENDING = ("kill", "restart")
SETTLED_WITHIN_S = 180.0
TELLING = ("kickwatch.note", "kickwatch.capability_lost", "kickwatch.clean_up_failed", "kickwatch.history_trouble")
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
class Engine:
    """A dockerd of the soak's own, in a network namespace of its own: it may be restarted, stopped and killed."""

    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = (ROOT / "dockerd.log").open("ab")
        command = [
            "unshare", "--net", "dockerd", "--host", f"unix://{ROOT}/docker.sock", "--data-root", str(ROOT / "data"),
            "--exec-root", str(ROOT / "exec"), "--pidfile", str(ROOT / "dockerd.pid"), "--bridge", "none",
            "--iptables=false", "--ip-masq=false",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        for _ in range(300):
            if self.docker("info").returncode == 0:
                return
            time.sleep(0.2)
        sys.exit(f"the engine did not start: see {ROOT}/dockerd.log")

    def docker(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the docker client."""
        command = ["docker", "-H", f"unix://{ROOT}/docker.sock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and what it started."""
        if self.process is not None:
            self.send(number)
            self.process.wait(120)
        if number is signal.SIGKILL:
            for left in processes_of(str(ROOT / "exec")):
                os.kill(left, signal.SIGKILL)
            time.sleep(1)
            # It would take whoever has that number by now for its containerd, and wait for that one's answer.
            (ROOT / "exec/containerd/containerd.pid").unlink(missing_ok=True)


def processes_of(text: str) -> list[int]:
    """Processes whose command line holds `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


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


def drawn(every: dict[str, Any], draw: random.Random) -> str:
    """The next fault; those that end the daemon are rarer, so that a life is long enough to grow in."""
    names = sorted(every)
    return draw.choices(names, [1 if name in ENDING else 3 for name in names])[0]


def settled_node() -> dict[str, Any]:
    """`node`, once what was deleted is gone: page cache and dentries keep a memcg dying until they are reclaimed."""
    time.sleep(SETTLED_S)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    time.sleep(SETTLED_S)
    return node()


def node() -> dict[str, Any]:
    """What could leak on the node."""

    def docker(*words: str) -> list[str]:
        listed = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        return sorted(listed.stdout.split())

    cgroups = [str(p) for pattern in ("kickwatch*", "*/kickwatch*") for p in Path("/sys/fs/cgroup").glob(pattern)]
    memory = re.search(r"^memory\s+\d+\s+(\d+)", Path("/proc/cgroups").read_text(encoding="ascii"), re.MULTILINE)
    live = sum(1 for _ in Path("/sys/fs/cgroup/memory").rglob("memory.stat"))
    return {
        "containers": docker("ps", "-aq"),
        "images": docker("images", "-q"),
        "networks": docker("network", "ls", "-q"),
        "cgroups": sorted(cgroups),
        "mounts": len(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()),
        "tracefs": sorted(str(path) for path in Path("/sys/kernel/tracing/instances").glob("*")),
        "bpf_programs": bpf_programs(),
        "dying_memcgs": int(memory[1]) - live if memory and live else 0,
    }


def bpf_programs() -> int:
    """Descriptors of BPF programs held by any process."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            count += "prog_type" in path.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
    return count


@contextmanager
def own_engine() -> Iterator[Engine]:
    """One with an empty root; nothing of it is left at the end."""
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(ROOT / "data")], check=True)
    engine = Engine()
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
        subprocess.run(["umount", "-l", str(ROOT / "data")], check=False)
        shutil.rmtree(ROOT, ignore_errors=True)


def soak(minutes: float, seed: int) -> int:
    """Run it; the number of complaints."""
    draw, since, done = random.Random(seed), time.monotonic(), Counter[str]()
    with own_engine() as engine, tempfile.TemporaryDirectory() as state:
        before, daemon = settled_node(), Daemon(state)
        daemon.start()
        try:
            while time.monotonic() - since < 60 * minutes:
                time.sleep(draw.uniform(20, 60))
                every = faults(engine, daemon, draw)
                name = drawn(every, draw)
                done[name] += 1
                every[name]()
                told = f"{(time.monotonic() - since) / 60:5.1f} min  {daemon.containers:5d} containers  {name}"
                print(f"{told}  {daemon.sizes[-1] if daemon.sizes else ''}", flush=True)
            daemon.settle()
        finally:
            stopped_s = daemon.stop(signal.SIGTERM)
        for reader in daemon.readers:
            reader.join()
        left = engine.docker("ps", "-aq").stdout.split() + engine.docker("images", "-q").stdout.split()
        cached = node()["dying_memcgs"]
        after = settled_node()
    print(f"faults: {dict(done)}")
    print(f"events: {dict(daemon.events)}")
    print("\n".join(f"  {times} x {what}" for what, times in daemon.told.most_common(30)))
    print(f"stopped within {stopped_s:.1f} s; dying memcgs before the page cache was dropped: {cached}")
    return complaints(daemon, before, after, left, minutes)


def complaints(daemon: Daemon, before: dict[str, Any], after: dict[str, Any], left: list[str], minutes: float) -> int:
    """Print what was found; how much of it is wrong."""
    wrong = [f"unhandled: {line}" for line in daemon.odd]
    wrong += [f"left in the engine: {one}" for one in left]
    for key, value in before.items():
        grown = after[key] - value if isinstance(value, int) else sorted(set(after[key]) - set(value))
        print(f"{key}: before {value if isinstance(value, int) else len(value)}, grown by {grown}")
        if grown and not (isinstance(grown, int) and (grown < 0 or (key == "dying_memcgs" and grown <= 50))):
            wrong.append(f"leaked: {key}: {grown}")
    wrong += growth(daemon)
    if daemon.containers < PER_HOUR * minutes / 60:
        wrong.append(f"only {daemon.containers} containers in {minutes:.0f} min")
    print(f"{daemon.containers} containers, {len(wrong)} complaints")
    print("\n".join(wrong))
    return len(wrong)


def growth(daemon: Daemon) -> list[str]:
    """Per life of the daemon: descriptors, threads and memory at its end against its early trials."""
    wrong = []
    for pid in dict.fromkeys(size["pid"] for size in daemon.sizes):
        life = [size for size in daemon.sizes if size["pid"] == pid]
        if len(life) < 12:
            continue
        early, late = life[5:10], life[-5:]
        for key, most in (("descriptors", 8), ("Threads", 4), ("VmRSS", 4096)):
            first, last = min(size[key] for size in early), min(size[key] for size in late)
            if last - first > most:
                wrong.append(f"grown in one life of {len(life)} trials: {key} {first} -> {last}")
    peak = {key: max((size[key] for size in daemon.sizes), default=0) for key in ("VmRSS", "descriptors", "Threads")}
    print(f"at most {peak['VmRSS'] / 1024:.1f} MiB, {peak['descriptors']} descriptors, {peak['Threads']} threads")
    return wrong


def main() -> int:
    """Parse, soak."""
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
