"""A dockerd of the tests' own, beside the node's: it may be killed, stopped and starved."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONTAINER = (
    "{{.ID}} {{.Image}} {{.Command}} {{.CreatedAt}} {{.Names}} {{.Mounts}} {{.Networks}} {{.State}}\t{{.Labels}}"
)
_IMAGE = "{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}} {{.CreatedAt}} {{.Size}}"
_NETWORK = "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.CreatedAt}} {{.Labels}}"
_REFILL_S = 0.005
ROOT = Path("/run/kickwatch-test-engine")  # a short path: socket names are bounded to 108 bytes


@dataclass
class PrivateEngine:
    """It has a network namespace of its own: with `--bridge none` dockerd removes the node's docker0."""

    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.root / "docker.sock"

    @property
    def data(self) -> Path:
        """Its root directory, a file system of its own."""
        return self.root / "data"

    def docker(self, *arguments: str) -> str:
        """What the command line says; CalledProcessError when it fails."""
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def inventory(self) -> list[str]:
        """`docker ps -a`, `images` and `network ls`, whole but for what tells the time."""
        containers = self.docker("ps", "-a", "--no-trunc", "--format", _CONTAINER).splitlines()
        listed = [line.split("\t") for line in containers]
        return [
            *(f"{told} {sorted(labels.split(','))}" for told, labels in listed),  # docker gives labels in any order
            *self.docker("images", "-a", "--no-trunc", "--format", _IMAGE).splitlines(),
            *self.docker("network", "ls", "--no-trunc", "--format", _NETWORK).splitlines(),
        ]

    def end(self, number: signal.Signals) -> None:
        """End dockerd and wait for it."""
        self.process.send_signal(number)
        self.process.wait(60)

    def start(self) -> None:
        """Start it again, on what the last one left."""
        self.process = launch(self.root).process

    def revive(self) -> None:
        """Whatever a test that failed has left, it runs and answers after this."""
        if not answers(self.socket):
            if self.process.poll() is None:
                self.end(signal.SIGKILL)
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stopped: connections are taken by the kernel, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Not a byte is free in its root, and what it frees is taken at once."""
        over = threading.Event()
        filler = threading.Thread(target=_fill, args=(self.data / "filler", over))
        filler.start()
        try:
            yield
        finally:
            over.set()
            filler.join()


def _fill(path: Path, over: threading.Event) -> None:
    with path.open("wb", buffering=0) as file:
        while not over.wait(_REFILL_S):
            with suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
    path.unlink()


def answers(socket: Path) -> bool:
    """Whether an engine is there."""
    asked = subprocess.run(["docker", "-H", f"unix://{socket}", "info"], capture_output=True, check=False)
    return asked.returncode == 0


def launch(root: Path) -> PrivateEngine:
    """Start one and wait until it answers."""
    log = (root / "dockerd.log").open("ab")
    process = subprocess.Popen(
        [
            "unshare", "--net", "dockerd", "--host", f"unix://{root}/docker.sock", "--data-root", str(root / "data"),
            "--exec-root", str(root / "exec"), "--pidfile", str(root / "dockerd.pid"),
            "--bridge", "none", "--iptables=false", "--ip-masq=false",
        ],
        stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    engine = PrivateEngine(root, process)
    for _ in range(150):
        if answers(engine.socket):
            return engine
        time.sleep(0.2)
    engine.end(signal.SIGKILL)
    pytest.fail(f"dockerd did not come up: {(root / 'dockerd.log').read_text()[-2000:]}")


@contextmanager
def private_engine(root: Path = ROOT) -> Iterator[PrivateEngine]:
    """One with an empty root of 64 MB; nothing of it is left at the end, whatever it was made to suffer.

    What a test session that was killed has left of one goes first.
    """
    clear(root)
    (root / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root / "data")], check=True)
    engine = None
    try:
        engine = launch(root)
        yield engine
    finally:
        if engine is not None and engine.process.poll() is None:
            engine.process.send_signal(signal.SIGCONT)
            engine.end(signal.SIGTERM)
        clear(root)


def clear(root: Path) -> None:
    """End what bears this path, unmount what is mounted below it, remove it."""
    for process in Path("/proc").glob("[0-9]*"):  # the shims and containerd of a killed dockerd: they bear our path
        with suppress(OSError):
            if str(root).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    for point in sorted(mounted, reverse=True):
        subprocess.run(["umount", "-l", point], check=True)
    if root.exists():
        shutil.rmtree(root)
