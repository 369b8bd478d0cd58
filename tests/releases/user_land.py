"""The user lands of Debian releases as directories, and commands in them on this machine's kernel.

Each is built by mmdebstrap and cached in the user's cache directory under the digest of its recipe. Commands run in a
private mount namespace, on an overlay that is thrown away: the directory stays as it was built.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cached_root import cached_root
from slowness import SLOWNESS

MIRROR = os.environ.get("KICKWATCH_LAB_MIRROR", "http://deb.debian.org")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_BUILD_S, _COMMAND_S = (seconds * SLOWNESS for seconds in (1200, 120))
# A compiler and the headers of what kickwatch and pip import. Its test suite is half of Python and stays away.
_TO_BUILD_PYTHON = ("gcc", "make", "libc6-dev", "zlib1g-dev", "libffi-dev", "libsqlite3-dev", "libssl-dev", "xz-utils")
_BUILD_PYTHON = """
cd /usr/src
mkdir python && tar -C python --strip-components=1 -xf python3.11_*.orig.tar.*
cd python
./configure --prefix=/opt/python --disable-test-modules
make -j2
make install
cd / && rm -rf /usr/src/*
"""
_ENTER = """
tree=$1 scratch=$2 shared=$3
shift 3
mount -t overlay -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" kickwatch "$scratch/root"
mount -t proc proc "$scratch/root/proc"
mount --rbind /sys "$scratch/root/sys"
mount --rbind /dev "$scratch/root/dev"
mkdir -p "$scratch/root/opt/shared"
mount --bind "$shared" "$scratch/root/opt/shared"
exec chroot "$scratch/root" "$@"
"""
_CLEAN = ("/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")


@dataclass(frozen=True)
class Release:
    """A release of Debian. `python`: the interpreter in it that is new enough; `has_python`: it comes with it."""

    suite: str
    python: str
    version: str
    has_python: bool = True

    @property
    def packages(self) -> tuple[str, ...]:
        """With a runtime, so that a verdict is possible there, and without libbpf."""
        brought = ("python3-venv",) if self.has_python else _TO_BUILD_PYTHON
        return ("ca-certificates", "runc", *brought)

    @property
    def sources(self) -> tuple[str, ...]:
        """Lines of a sources.list."""
        signed = f"[signed-by={_KEYRING}] {MIRROR}"
        lines = (
            f"deb {signed}/debian {self.suite} main",
            f"deb {signed}/debian-security {self.suite}-security main",
        )
        return lines if self.has_python else (*lines, f"deb-src {signed}/debian bookworm main")


RELEASES = (
    Release("bullseye", "/opt/python/bin/python3", "3.11", has_python=False),
    Release("bookworm", "/usr/bin/python3", "3.11"),
    Release("trixie", "/usr/bin/python3", "3.13"),
)


class UserLandError(Exception):
    """A user land could not be built, or a command in it failed."""


@dataclass(frozen=True)
class UserLand:
    """`tree` is never written to; `scratch` has what commands write; `shared` is /opt/shared in it."""

    tree: Path
    scratch: Path
    shared: Path

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command in it. `check`: raise UserLandError if the exit status is not 0."""
        for name in ("upper", "work", "root"):
            (self.scratch / name).mkdir(parents=True, exist_ok=True)
        inside = ["unshare", "--mount", "--propagation=private", "sh", "-ec", _ENTER, "sh"]
        places = [str(path) for path in (self.tree, self.scratch, self.shared)]
        return _run([*inside, *places, *_CLEAN, *command], check=check, timeout_s=_COMMAND_S)

    def clear(self) -> None:
        """Remove what commands wrote."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def built(release: Release) -> Path:
    """The release's directory, from the cache or built: in a minute, or in five where Python is built too."""
    parts = [release.suite, release.packages, release.sources, _LEFT_OUT, _BUILD_PYTHON, os.uname().machine]
    return cached_root(f"release-{release.suite}", json.dumps(parts), partial(_build, release))


def _build(release: Release, target: Path) -> None:
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(release.packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    command += [f"--aptopt={line}" for line in ('Acquire::Check-Valid-Until "false"', 'Acquire::Check-Date "false"')]
    if not release.has_python:
        # Debian's own source of a later release, with its signature: no other place is needed.
        fetch = 'cd "$1/usr/src" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get source --download-only python3.11'
        command += [f"--customize-hook={fetch}", f"--customize-hook=chroot \"$1\" sh -ec '{_BUILD_PYTHON}'"]
    _run([*command, release.suite, str(target), *release.sources], check=True, timeout_s=_BUILD_S)


def _run(command: list[str], *, check: bool, timeout_s: float) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode:
        raise UserLandError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done
