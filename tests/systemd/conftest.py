"""Test nodes, and kickwatch installed on them as a user would: build a wheel, copy it, run the installer."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules in this directory, which pytest does not find

from systemd_node import NAME, SOURCE, Node, base, booted

ROOT = Path(__file__).parents[2]
_BUILD_S = 300


@dataclass(frozen=True)
class Wheels:
    """What an installation without a network needs: kickwatch's wheel, and a directory with its dependencies."""

    wheel: Path
    links: Path


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Built from this tree by `make wheel`; dependencies downloaded by pip for the node's Python 3.11.

    The installer leaves those of the extra `cri` out.
    """
    made, links = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("links")
    _output_of(["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEEL_DIR={made}"])
    (wheel,) = made.glob("kickwatch-*.whl")
    wanted = ["--only-binary=:all:", "--python-version=3.11", f"--dest={links}", f"{wheel}[cri]"]
    _output_of([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", *wanted])
    for copy in links.glob("kickwatch-*.whl"):
        copy.unlink()
    return Wheels(wheel, links)


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def with_sources(wheels: Wheels, scratch: Path, name: str = NAME) -> Iterator[Node]:
    """A booted node with the `deploy/` and `dist/` of a release in SOURCE."""
    with booted(base(), scratch, name) as node:
        source = node.path(SOURCE)
        shutil.copytree(ROOT / "deploy", source / "deploy")
        shutil.copytree(wheels.links, source / "links")
        (source / "dist").mkdir()
        shutil.copy(wheels.wheel, source / "dist")
        yield node


@pytest.fixture(scope="module")
def bare(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node for one test module, without kickwatch."""
    with with_sources(wheels, tmp_path_factory.mktemp("bare")) as node:
        yield node


@pytest.fixture(scope="session")
def installed(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node that all other tests share, with kickwatch installed but not started."""
    with with_sources(wheels, tmp_path_factory.mktemp("node"), "kw-systemd-shared") as node:
        node.install()
        yield node
