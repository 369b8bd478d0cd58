"""The wheel in the user lands of Debian 11, 12 and 13, on this machine's kernel: nothing is missing there.

No libbpf is installed in any of them; Debian 11 has 0.3, and a Python that is too old, so that one is built there.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the module in this directory, which pytest does not find

from user_land import RELEASES, Release, UserLand, built

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/kickwatch/bin/kickwatch"
pytestmark = [pytest.mark.kernel, pytest.mark.long, pytest.mark.timeout(1500)]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree's wheel, built as `make wheel` builds it."""
    made = tmp_path_factory.mktemp("wheel")
    _must(["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEEL_DIR={made}"])
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(params=RELEASES, ids=lambda release: release.suite)
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UserLand]:
    """The user land of a release with the wheel installed, from a directory of wheels and without a network."""
    release: Release = request.param
    links = tmp_path_factory.mktemp("links")
    shutil.copy(wheel, links)
    wanted = ["--only-binary=:all:", f"--python-version={release.version}", f"--dest={links}", str(wheel)]
    _must([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", *wanted])
    land = UserLand(built(release), tmp_path / "scratch", links)
    try:
        land.run(release.python, "-m", "venv", "/opt/kickwatch")
        pip = (f"{Path(PROGRAM).parent}/pip", "--disable-pip-version-check", "install")
        land.run(*pip, "--no-index", "--find-links=/opt/shared", "kickwatch")
        yield land
    finally:
        land.clear()


def test_doctor_is_not_blind_in_an_older_or_newer_release(installed: UserLand) -> None:
    assert not list((installed.tree / "usr/lib").rglob("libbpf.so*"))
    done = installed.run(PROGRAM, "doctor", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = {capability["name"]: capability for capability in report["capabilities"]}
    missing = [name for name, capability in found.items() if capability["needed"] and not capability["satisfied"]]
    assert not report["blind"], found
    assert not missing, found
    assert all(found[name]["satisfied"] for name in ("IPIs by reason", "lock contention")), found


def _must(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
