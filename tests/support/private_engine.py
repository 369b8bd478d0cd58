"""A separate dockerd for tests, which they may kill, stop and deprive of disk space."""

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
ROOT = Path("/run/kickwatch-test-engine")  # short, because a socket's path may have at most 108 bytes


@dataclass
class PrivateEngine:
    """It runs in a new network namespace: with `--bridge none` dockerd removes the docker0 of its namespace."""

    root: Path
    process: "subprocess.Popen[bytes]"
    options: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        """The path of its socket."""
        return self.root / "docker.sock"

    @property
    def data(self) -> Path:
        """Its root directory, a separate file system."""
        return self.root / "data"

    def docker(self, *arguments: str) -> str:
        """The output of a docker command. Raises CalledProcessError if it fails."""
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def inventory(self) -> list[str]:
        """`docker ps -a`, `images` and `network ls` in full, without durations."""
        containers = self.docker("ps", "-a", "--no-trunc", "--format", _CONTAINER).splitlines()
        listed = [line.split("\t") for line in containers]
        return [
            *(f"{line} {sorted(labels.split(','))}" for line, labels in listed),  # docker lists labels in any order
            *self.docker("images", "-a", "--no-trunc", "--format", _IMAGE).splitlines(),
            *self.docker("network", "ls", "--no-trunc", "--format", _NETWORK).splitlines(),
        ]

    def end(self, number: signal.Signals) -> None:
        """Send a signal to dockerd and wait for its exit."""
        self.process.send_signal(number)
        self.process.wait(60)

    def start(self) -> None:
        """Start it again with the same directories."""
        self.process = launch(self.root, self.options).process

    def revive(self) -> None:
        """Restart it if it does not answer, for example after a failed test."""
        if not answers(self.socket):
            if self.process.poll() is None:
                self.end(signal.SIGKILL)
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop dockerd with SIGSTOP: the kernel accepts connections, but they get no answer."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Fill its root completely, and refill what it frees at once."""
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
    """Whether an engine answers at this socket."""
    asked = subprocess.run(["docker", "-H", f"unix://{socket}", "info"], capture_output=True, check=False)
    return asked.returncode == 0


def launch(root: Path, options: tuple[str, ...] = ()) -> PrivateEngine:
    """Start a dockerd with these options and wait until it answers."""
    log = (root / "dockerd.log").open("ab")
    process = subprocess.Popen(
        [
            "unshare", "--net", "dockerd", "--host", f"unix://{root}/docker.sock", "--data-root", str(root / "data"),
            "--exec-root", str(root / "exec"), "--pidfile", str(root / "dockerd.pid"),
            "--bridge", "none", "--iptables=false", "--ip-masq=false", *options,
        ],
        stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    engine = PrivateEngine(root, process, options)
    for _ in range(150):
        if answers(engine.socket):
            return engine
        time.sleep(0.2)
    engine.end(signal.SIGKILL)
    pytest.fail(f"dockerd did not answer: {(root / 'dockerd.log').read_text()[-2000:]}")


@contextmanager
def private_engine(root: Path = ROOT, options: tuple[str, ...] = (), size: str = "64m") -> Iterator[PrivateEngine]:
    """A dockerd with these options and an empty root of `size`.

    It is removed completely at the end, whatever a test did to it. First removes what a killed test session left.
    """
    clear(root)
    (root / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root / "data")], check=True)
    engine = None
    try:
        engine = launch(root, options)
        yield engine
    finally:
        if engine is not None and engine.process.poll() is None:
            engine.process.send_signal(signal.SIGCONT)
            engine.end(signal.SIGTERM)
        clear(root)


def clear(root: Path) -> None:
    """Kill processes with this path in their command line, unmount what is below it, remove it."""
    for process in Path("/proc").glob("[0-9]*"):  # shims and containerd of a killed dockerd have our path
        with suppress(OSError):
            if str(root).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    for point in sorted(mounted, reverse=True):
        subprocess.run(["umount", "-l", point], check=True)
    if root.exists():
        shutil.rmtree(root)
