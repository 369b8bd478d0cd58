"""A separate dockerd for the soak, which may be restarted, stopped and killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/run/kickwatch-soak")


@dataclass
class Engine:
    """A separate dockerd in a new network namespace; it may be restarted, stopped and killed."""

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
        """Run a command of the docker client."""
        command = ["docker", "-H", f"unix://{ROOT}/docker.sock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it; after SIGKILL also kill the processes that it has started."""
        if self.process is not None:
            self.send(number)
            self.process.wait(120)
        if number is signal.SIGKILL:
            for left in processes_of(str(ROOT / "exec")):
                os.kill(left, signal.SIGKILL)
            time.sleep(1)
            # Otherwise dockerd would take any process with that pid for its containerd and wait for its answer.
            (ROOT / "exec/containerd/containerd.pid").unlink(missing_ok=True)


@contextmanager
def own_engine() -> Iterator[Engine]:
    """An engine with an empty root; removed completely at the end."""
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(ROOT / "data")], check=True)
    engine = Engine()
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
        for left in processes_of(str(ROOT / "exec")):  # shims of interrupted container starts
            os.kill(left, signal.SIGKILL)
        subprocess.run(["umount", "-l", str(ROOT / "data")], check=False)
        shutil.rmtree(ROOT, ignore_errors=True)


def processes_of(text: str) -> list[int]:
    """Processes whose command line contains `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
