"""Docker Engines of other Debian releases keep the same contract, and a trial on each prints a bill."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import old_engines
import pytest
from archive import Suite
from shell import cache, locked
from userland import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=[Suite.TRIXIE, Suite.SID])
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """An engine that runs: 26 of trixie, 28 or newer of sid."""
    with locked(cache() / "lock"):
        root = old_engines.tree(request.param, cache())
    with old_engines.running(root) as version:
        yield version


def test_keeps_the_contract(version: str) -> None:
    """tests/docker/test_engine_contract.py, its Docker part, on this engine."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "not podman and not runc and not crun",
    ]
    command += [str(ROOT / "tests/docker/test_engine_contract.py")]
    environment = {**os.environ, "ENGINE_SOCKET": str(old_engines.SOCKET), "KICKWATCH_REQUIRE": "docker,kernel"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"Docker {version}: {done.stdout[-5000:]}"
    assert " passed" in done.stdout


def test_a_trial_prints_a_bill(version: str) -> None:
    command = [sys.executable, "-m", "kickwatch", "trial", "--json", "--containers", "12"]
    command += ["--set", f"engine.socket={old_engines.SOCKET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert version in told["engine"]
    assert (told["containers"], told["failures"]) == (12, [])
    assert told["bill"]
