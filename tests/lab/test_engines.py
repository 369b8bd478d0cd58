"""Docker Engines of other Debian releases pass the contract tests, and a trial on each prints a bill."""

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


@pytest.fixture(scope="module", params=[Suite.BULLSEYE, Suite.TRIXIE, Suite.SID])
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running engine: 20.10.5 of bullseye, 26 of trixie, 28 or newer of sid."""
    with locked(cache() / "lock"):
        root = old_engines.tree(request.param, cache())
    with old_engines.running(root) as version:
        yield version


def test_the_engine_passes_the_contract_tests(version: str) -> None:
    """The Docker tests of tests/docker/test_engine_contract.py on this engine."""
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
    result = json.loads(done.stdout)
    assert version in result["engine"]
    assert (result["containers"], result["failures"]) == (12, [])
    assert result["bill"]
