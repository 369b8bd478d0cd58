"""A disk with an ordinary Debian 12, systemd and Docker Engine, and this tree's last commit as a git bundle.

It has the packages and wheels that `make run` would otherwise fetch from the archive and from PyPI, because a guest has
no network. Everything else is done in the guest as a user would do it.
"""

import os
import sys
from pathlib import Path

from shell import output_of, run
from userland import PACKAGES, ROOT, base, disk_of, fetch_wheels

_PACKAGES = (
    *(*PACKAGES, "git", "make", "gcc", "libc6-dev", "clang", "libbpf-dev", "docker.io", "iptables", "apparmor"),
    *("prometheus", "mmdebstrap", "bpftrace", "podman"),  # needed by `make test`
)
_WITHOUT_WHEEL = ("forbiddenfruit",)  # only a source distribution on PyPI; pure Python
_HOME = "root"
BUNDLE, WHEELS = f"/{_HOME}/kickwatch.bundle", f"/{_HOME}/wheels"
_FREE_MB = 3000  # for the virtual environment of the tests, images and containers


def ordinary(wheel: Path, cache: Path) -> Path:
    """The disk image. `wheel` is kickwatch's, whose dependencies are fetched."""
    commit = output_of(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()

    def fill(tree: Path) -> None:
        run(["git", "-C", ROOT, "bundle", "create", tree / BUNDLE.lstrip("/"), "HEAD"])
        wheels = tree / WHEELS.lstrip("/")
        wheels.mkdir()
        for source in _WITHOUT_WHEEL:
            run([sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", f"--wheel-dir={wheels}", source])
        fetch_wheels(wheels, f"--find-links={wheels}", f"{wheel}[dev]", "hatchling", "editables", "pip")
        (tree / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {WHEELS}\n", encoding="ascii")

    return disk_of("ordinary", base(cache, "fleet", _PACKAGES), [commit], fill, free_mb=_FREE_MB)


def in_clone(command: str) -> str:
    """A script that runs `command` in a clone of the bundle, which it makes if there is none."""
    clone = f"/{_HOME}/kickwatch"
    return os.linesep.join((f"[ -d {clone} ] || git clone --quiet {BUNDLE} {clone}", f"cd {clone}", command))
