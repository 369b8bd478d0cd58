"""A node for each module of tests, and kickwatch on it as a user would bring it: built, copied, installed."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one, which pytest does not look for

from systemd_node import SOURCE, Node, base, booted

ROOT = Path(__file__).parents[2]
_BUILD_S = 300


@dataclass(frozen=True)
class Wheels:
    """What an installation without a network takes: `wheel` is kickwatch's, `links` holds its dependencies."""

    wheel: Path
    links: Path


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Built from this tree by `make wheel`; dependencies as pip takes them for the node's Python 3.11."""
    made, links = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("links")
    _said(["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEEL_DIR={made}"])
    (wheel,) = made.glob("kickwatch-*.whl")
    wanted = ["--only-binary=:all:", "--python-version=3.11", f"--dest={links}", str(wheel)]
    _said([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", *wanted])
    for copy in links.glob("kickwatch-*.whl"):
        copy.unlink()
    return Wheels(wheel, links)


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def node(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A booted node; what a release's tree has of `deploy/`, `systemd/` and `dist/` lies in SOURCE."""
    scratch = tmp_path_factory.mktemp("node")
    with booted(base(), scratch) as node:
        source = node.path(SOURCE)
        for part in ("deploy", "systemd"):
            shutil.copytree(ROOT / part, source / part)
        shutil.copytree(wheels.links, source / "links")
        (source / "dist").mkdir()
        shutil.copy(wheels.wheel, source / "dist")
        yield node


@pytest.fixture(scope="module")
def installed(node: Node) -> Node:
    """The node with kickwatch installed, and not started."""
    node.install()
    return node
