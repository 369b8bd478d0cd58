"""Debian packages of this tree, and of a later version of it, as `make deb` builds them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie")
LATER = "99.0.0"
ADDED = f"# Added in {LATER}.\n"  # to both files of the configuration
_BUILD_S = 600
# What a package is built from, with what `make native` has built in it.
_SOURCES = ("daemon", "deploy", "docs", "systemd")
_SINGLE = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "CHANGELOG.md")


@dataclass(frozen=True)
class Built:
    """The packages of one version, by suite."""

    version: str
    packages: Mapping[str, Path]


def version_of(tree: Path) -> str:
    """The version that a tree has, in the one place where it is."""
    found = re.search(r'^__version__ = "([^"]+)"$', (tree / "daemon/kickwatch/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def wheel_of(tree: Path, into: Path) -> Path:
    """The wheel of a tree whose native programs are built, with its man pages."""
    run(
        [sys.executable, str(tree / "docs/generate.py"), "man", str(tree / "build/man")],
        PYTHONPATH=str(tree / "daemon"),
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--no-build-isolation", f"--wheel-dir={into}", str(tree)])
    (wheel,) = into.glob("kickwatch-*.whl")
    return wheel


def copy_of(tree: Path, into: Path) -> Path:
    """The parts of a tree that a package is built from."""
    for name in _SOURCES:
        shutil.copytree(tree / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _SINGLE:
        shutil.copy(tree / name, into / name)
    return into


def later(tree: Path) -> Path:
    """The same tree, made a later version in the one place, with other defaults in both files of the configuration."""
    home = tree / "daemon/kickwatch/__init__.py"
    home.write_text(home.read_text().replace(f'"{version_of(tree)}"', f'"{LATER}"'))
    for name in ("deploy/kickwatch.toml", "systemd/oci.conf"):
        with (tree / name).open("a") as file:
            file.write(ADDED)
    return tree


def build_deb(tree: Path, wheel: Path, suite: str, into: Path, umask: int = -1, **environment: str) -> Path:
    """The package of a suite, and beside it the list of its parts."""
    script = [sys.executable, str(tree / "deploy/debian/build.py"), f"--wheel={wheel}", f"--suite={suite}"]
    run([*script, f"--out={into}"], umask, SOURCE_DATE_EPOCH="1500000000", **environment)
    (package,) = into.glob(f"kickwatch_*+deb{'12' if suite == 'bookworm' else '13'}_*.deb")
    return package


def build_all(scratch: Path) -> Iterator[Built]:
    """This version and a later one, for both suites, two builds at a time."""
    run(["make", "--no-print-directory", "-C", str(ROOT), "native"])
    this, other = (copy_of(ROOT, scratch / name) for name in ("this", "later"))
    trees = {version_of(this): this, LATER: later(other)}
    with ThreadPoolExecutor(2) as pool:
        wheels = dict(zip(trees, pool.map(lambda one: wheel_of(trees[one], scratch / one), trees), strict=True))
        pending = {
            (version, suite): pool.submit(build_deb, tree, wheels[version], suite, scratch / version / suite)
            for version, tree in trees.items()
            for suite in SUITES
        }
        for version in trees:
            yield Built(version, {suite: pending[version, suite].result() for suite in SUITES})


def run(command: list[str], umask: int = -1, **environment: str) -> str:
    """The output of a command, which must succeed; `environment` is added to this one's."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
        umask=umask,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stdout}{done.stderr}"
    return done.stdout
