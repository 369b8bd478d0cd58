"""Failures of an engine: one clear error line, the right exit status, and nothing left that can be removed."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import ended, kickwatch, start
from private_engine import PrivateEngine, private_engine
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]


CHURN_FIRST = 5  # a seed whose order begins with the churn window


@pytest.fixture
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


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
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(8)
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


def test_an_image_that_does_not_exist() -> None:
    outcome = kickwatch("trial", "--set", "workload.image=no-such-image:1")
    assert outcome.status == 1
    assert "docker pull no-such-image:1" in outcome.complaint


def test_a_full_disk_while_the_image_is_imported(engine: PrivateEngine) -> None:
    with engine.disk_full():
        outcome = kickwatch("trial", "--containers", "1", "--set", f"engine.socket={engine.socket}")
    assert outcome.status == 1
    assert "no space left on device" in outcome.complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_dies_during_a_trial(engine: PrivateEngine, number: signal.Signals) -> None:
    at = [
        "--set",
        f"engine.socket={engine.socket}",
        "--set",
        f"trial.seed={CHURN_FIRST}",
        "--set",
        "trial.design=whole",
    ]
    trial = start("trial", "--containers", "500", *at)
    deadline = time.monotonic() + 60 * SLOWNESS
    while time.monotonic() < deadline and not engine.docker("ps", "-q"):
        time.sleep(0.1)
    time.sleep(1)
    engine.end(number)
    outcome = ended(trial)
    assert outcome.status == 1, outcome.err
    assert str(engine.socket) in outcome.complaint
    if number is signal.SIGTERM:  # after SIGKILL dockerd does not always find its containerd again
        engine.start()
        after = kickwatch("trial", "--containers", "1", "--set", "trial.window_s=0.5", *at)
        assert after.status == 4, after.err
        assert engine.docker("ps", "-aq", "--filter", "label=kickwatch.instance") == ""
