"""What goes wrong with an engine: one clear line, the right exit status, nothing left that can be removed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from command import ended, kickwatch, start

pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]


CHURN_FIRST = 5  # a seed whose order begins with the churn window


@dataclass
class PrivateEngine:
    """A dockerd of the test's own, beside the node's: it may be killed and starved.

    In a network namespace of its own: with `--bridge none` dockerd removes the node's docker0.
    """

    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    def docker(self, *arguments: str) -> str:
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def end(self, number: signal.Signals) -> None:
        """End dockerd and wait for it."""
        self.process.send_signal(number)
        self.process.wait(60)


def launch(root: Path) -> PrivateEngine:
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
        ping = ["docker", "-H", f"unix://{engine.socket}", "info"]
        if subprocess.run(ping, capture_output=True, check=False).returncode == 0:
            return engine
        time.sleep(0.2)
    engine.end(signal.SIGKILL)
    pytest.fail(f"dockerd did not come up: {(root / 'dockerd.log').read_text()[-2000:]}")


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    root = Path("/run/kickwatch-test-engine")  # a short path: socket names are bounded to 108 bytes
    (root / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root / "data")], check=True)
    engine = launch(root)
    yield engine
    if engine.process.poll() is None:
        engine.end(signal.SIGTERM)
    for process in Path("/proc").glob("[0-9]*"):  # the shims and containerd of a killed dockerd: they bear our path
        with suppress(OSError):
            if str(root).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    for point in sorted(mounted, reverse=True):
        subprocess.run(["umount", "-l", point], check=True)
    shutil.rmtree(root)


def test_no_engine() -> None:
    outcome = kickwatch("trial", "--set", "engine.socket=/run/no-such-engine.sock")
    assert outcome.status == 1
    assert "/run/no-such-engine.sock" in outcome.complaint
    assert "No such file" in outcome.complaint


def test_a_socket_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    outcome = kickwatch("trial", "--set", f"engine.socket={path}")
    assert outcome.status == 1
    assert "Connection refused" in outcome.complaint


def test_a_socket_that_never_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(8)
        since = time.monotonic()
        outcome = kickwatch("trial", "--set", f"engine.socket={path}", "--set", "engine.timeout_s=2")
    assert outcome.status == 1
    assert time.monotonic() - since < 20
    assert str(path) in outcome.complaint


def test_without_permission() -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*nobody, sys.executable, "-m", "kickwatch", "trial"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "run as root" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_image_that_is_not_there() -> None:
    outcome = kickwatch("trial", "--set", "workload.image=no-such-image:1")
    assert outcome.status == 1
    assert "docker pull no-such-image:1" in outcome.complaint


def test_the_disk_is_full_when_the_image_is_made(private_engine: PrivateEngine) -> None:
    filler = private_engine.root / "data" / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    outcome = kickwatch("trial", "--containers", "1", "--set", f"engine.socket={private_engine.socket}")
    assert outcome.status == 1
    assert "no space left on device" in outcome.complaint
    filler.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_dies_in_mid_trial(private_engine: PrivateEngine, number: signal.Signals) -> None:
    at = ["--set", f"engine.socket={private_engine.socket}", "--set", f"trial.seed={CHURN_FIRST}"]
    trial = start("trial", "--containers", "500", *at)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not private_engine.docker("ps", "-q"):
        time.sleep(0.1)
    time.sleep(1)
    private_engine.end(number)
    outcome = ended(trial)
    assert outcome.status == 1, outcome.err
    assert str(private_engine.socket) in outcome.complaint
    if number is signal.SIGTERM:  # after a kill, whether dockerd finds its containerd again is dockerd's business
        private_engine.process = launch(private_engine.root).process
        after = kickwatch("trial", "--containers", "1", "--set", "trial.window_s=0.5", *at)
        assert after.status == 4, after.err
        assert private_engine.docker("ps", "-aq", "--filter", "label=kickwatch.instance") == ""
