"""Runs the unit tests of this tree in Debian 13's user land (Python 3.13), on this machine's kernel.

The file system is built by mmdebstrap and cached with the test dependencies in it. Each run writes to an overlay, in
namespaces that end with it, so nothing is left mounted however it ends.

    python3 tests/debian_13/user_land.py [ARGUMENTS OF pytest]  all unit tests, or those of them that are named
    python3 tests/debian_13/user_land.py live COMMAND...        a command that sees this machine's processes and engine
    python3 tests/debian_13/user_land.py bare COMMAND...        in a Debian with make and python3 alone: `bare make run`
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # this is a script, not a test

from cached_root import cached_root

ROOT = Path(__file__).parents[2]
SUITE, PYTHON = "trixie", "3.13"
# gcc: tests compile what they compare with the native programs. zsh, fish: they read the completion scripts.
PACKAGES = ("python3-venv", "ca-certificates", "procps", "gcc", "libc6-dev", "make", "zsh", "fish", "tmux")
BARE = ("make", "python3")
# What `make setup` installs there. They are only in apt's cache; what is missing or older is fetched then.
FETCHED = ("python3-venv", "ca-certificates", "gcc", "libc6-dev", "clang", "libbpf-dev", "docker.io")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# Of the extra `dev`, the unit tests do not import these.
NOT_NEEDED = (
    "ansible-core",
    "axe-playwright-python",
    "cyclonedx-python-lib",
    "grafana-foundation-sdk",
    "mypy",
    "playwright",
    "ruff",
    "types-",
)
ADDED = ("greenlet",)  # part of playwright: a test shows that structlog would load it
BUILD = ("hatchling", "editables")
SOURCE_ONLY = ("forbiddenfruit",)  # blockbuster needs it, and the index has no wheel of it
NOT_COPIED = (".venv", ".git", "build", "dist", "__pycache__", ".hypothesis", ".*_cache")
BUILT = ("*.bpf.o", "bin", "*_pb2.py*")  # a fresh clone has none of these
VENV = "/opt/venv"
_PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Everything in the namespaces: mounts on the overlay, then the command. $1: the root, $2: its options, $3: its /run,
# $4: what Docker stores, which must not be on an overlay.
INSIDE = f"""
set -e
mount --make-rprivate /
mount -t overlay -o "$2" user-land "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
mount $3 "$1/run"
mkdir -p "$1/var/lib/docker"
mount --bind "$4" "$1/var/lib/docker"
cp /etc/hosts /etc/resolv.conf "$1/etc"
root=$1
shift 4
chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH={_PATH} \
    KICKWATCH_TEST_SLOWNESS="$KICKWATCH_TEST_SLOWNESS" sh -c 'cd /src && exec "$@"' sh "$@"
exit $? # this shell stays as pid 1, which tests take for a process that is not theirs
"""


def requirements(*left_out: str) -> list[str]:
    """What kickwatch and its tests need, as pyproject.toml names it, without names that begin so."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *ADDED]
    return [line for line in wanted if not line.startswith(left_out)]


def base() -> Path:
    """The file system with a virtual environment in VENV; building it takes some minutes."""
    recipe = json.dumps([SUITE, PACKAGES, LEFT_OUT, requirements(*NOT_NEEDED), os.uname().machine])
    return cached_root("debian-13-base", recipe, _build)


def bare() -> Path:
    """The file system of a fresh Debian, with what `make setup` fetches in apt's cache and in /links."""
    recipe = json.dumps([SUITE, BARE, FETCHED, LEFT_OUT, requirements(), BUILD, os.uname().machine])
    return cached_root("debian-13-bare", recipe, _build_bare)


def _build(target: Path) -> None:
    _debootstrap(target, *PACKAGES)
    wanted = requirements(*NOT_NEEDED)
    _fetch_wheels(target / "links", *wanted)
    chroot = ("chroot", str(target), "env", "-i", "PATH=/usr/bin:/bin", "HOME=/root")
    _run(*chroot, "python3", "-m", "venv", VENV)
    install = ("-m", "pip", "--quiet", "install", "--no-index", "--find-links=/links")
    _run(*chroot, f"{VENV}/bin/python", *install, *wanted)
    shutil.rmtree(target / "links")


def _build_bare(target: Path) -> None:
    fetch = f"apt-get install --download-only --yes --no-install-recommends {' '.join(FETCHED)}"
    hook = f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {fetch}'
    _debootstrap(target, *BARE, options=(hook, "--skip=cleanup/apt/cache"))
    _fetch_wheels(target / "links", *requirements(), *BUILD)
    (target / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /links\n", encoding="ascii")


def _debootstrap(target: Path, *packages: str, options: tuple[str, ...] = ()) -> None:
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    included = f"--include={','.join(packages)}"
    command = ("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", included, *excluded, *options)
    _run(*command, SUITE, str(target))


def _fetch_wheels(links: Path, *wanted: str) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", f"--wheel-dir={links}", *SOURCE_ONLY)
    wheels = ("--only-binary=:all:", f"--python-version={PYTHON}", f"--find-links={links}", f"--dest={links}")
    _run(*pip, "download", *wheels, *wanted)


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def enter(
    scratch: Path, *command: str, lower: Path, live: bool = False, left_out: tuple[str, ...] = NOT_COPIED
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command in a copy of this tree in the user land `lower`, with VENV first on PATH.

    `left_out`: files of the tree that are not copied. `live`: it sees this machine's processes, and what is in its
    /run: the engine's socket, the node's lock.
    """
    merged = scratch / "root"
    for directory in (merged, scratch / "upper", scratch / "work", scratch / "docker"):
        directory.mkdir()
    shutil.copytree(ROOT, scratch / "upper/src", symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    packages = scratch / "upper" / VENV.lstrip("/") / f"lib/python{PYTHON}/site-packages"
    packages.mkdir(parents=True)
    (packages / "kickwatch.pth").write_text("/src/daemon\n", encoding="ascii")
    options = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    namespaces = ("--mount",) if live else ("--mount", "--pid", "--fork", "--kill-child")
    run = "--rbind /run" if live else "-t tmpfs tmpfs"
    inside = ("sh", "-c", INSIDE, "sh", str(merged), options, run, str(scratch / "docker"), *command)
    environment = {"KICKWATCH_TEST_SLOWNESS": "1"} | os.environ
    return subprocess.run(("unshare", *namespaces, *inside), stdin=subprocess.DEVNULL, env=environment, check=False)


def main(scratch: Path, *arguments: str) -> int:
    """The exit status of what the module's first lines describe."""
    match arguments:
        case ("live", *command):
            done = enter(scratch, *command, live=True, lower=base())
        case ("bare", *command):
            done = enter(scratch, *command, lower=bare(), left_out=(*NOT_COPIED, *BUILT))
        case _:
            which = () if any(one.startswith("tests/") for one in arguments) else ("tests/unit",)
            tests = ("python", "-m", "pytest", "-p", "no:cacheprovider", "-m", "not long", *which, *arguments)
            done = enter(scratch, *tests, lower=base())
    return done.returncode


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kickwatch-debian-13-", ignore_cleanup_errors=True) as directory:
        status = main(Path(directory), *sys.argv[1:])
    sys.exit(status)
