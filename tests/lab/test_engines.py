"""Engines of other Debian releases, Docker and containerd: the contract tests, and a trial that prints a bill."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import old_engines
import pytest
from archive import Suite
from shell import cache
from userland import ROOT

from cached_root import locked

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]
CONTAINERD = (f"engine.socket={old_engines.CRI_SOCKET}", "engine.kind=cri")


ENGINES = [
    *((suite, "{}") for suite in (Suite.BULLSEYE, Suite.TRIXIE, Suite.SID)),
    *((suite, old_engines.IMAGE_STORE) for suite in (Suite.TRIXIE, Suite.SID)),
]


@pytest.fixture(
    scope="module", params=ENGINES, ids=[suite if settings == "{}" else f"{suite}-store" for suite, settings in ENGINES]
)
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running engine: 20.10.5 of bullseye, 26 of trixie, 28 or newer of sid; these two with both stores of images."""
    suite, settings = request.param
    with locked(cache() / "lock"):
        root = old_engines.tree(suite, cache())
    with old_engines.running(root, settings) as version:
        stores = settings == old_engines.IMAGE_STORE
        assert ("io.containerd.snapshotter" in old_engines.image_store()) is stores
        yield version


@pytest.fixture(scope="module", params=[Suite.TRIXIE, Suite.SID])
def containerd(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running containerd with a CRI: 1.7 of trixie, 1.7 or newer of sid."""
    with locked(cache() / "lock"):
        root = old_engines.tree(request.param, cache())
    with old_engines.containerd_running(root) as version:
        yield version


def contract_tests(which: str, **sockets: Path) -> None:
    """The tests of tests/docker/test_engine_contract.py that -k selects, on the engines at these sockets."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", which]
    command += [str(ROOT / "tests/docker/test_engine_contract.py")]
    environment = {**os.environ, **{name: str(socket) for name, socket in sockets.items()}}
    environment |= {"KICKWATCH_REQUIRE": "docker,kernel"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def prints_a_bill(version: str, *settings: str) -> None:
    """A trial with these settings on the engine of this version."""
    command = [sys.executable, "-m", "kickwatch", "trial", "--json", "--containers", "12"]
    command += [argument for setting in settings for argument in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert version in result["engine"]
    assert (result["containers"], result["failures"]) == (12, [])
    assert result["bill"]


def test_the_engine_passes_the_contract_tests(version: str) -> None:
    which = "not podman and not containerd and not runc and not crun"
    contract_tests(which, ENGINE_SOCKET=old_engines.SOCKET)


def test_a_trial_prints_a_bill(version: str) -> None:
    prints_a_bill(version, f"engine.socket={old_engines.SOCKET}")


def test_the_containerd_passes_the_contract_tests(containerd: str) -> None:
    contract_tests("containerd and not trixie", CRI_SOCKET=old_engines.CRI_SOCKET)


def test_a_trial_through_containerd_prints_a_bill(containerd: str) -> None:
    prints_a_bill(containerd, *CONTAINERD)
