"""A Debian 12 as fleets have it, systemd and Docker Engine included, and this tree's last commit as a git bundle.

The packages that `make run` would fetch from the archive are there, and the wheels that it would fetch from PyPI: a
guest has no network. Everything else is done in the guest as a user would do it.
"""

import os
import sys
from pathlib import Path

from shell import run, said
from userland import PACKAGES, ROOT, base, disk_of, fetch_wheels

_PACKAGES = (
    *(*PACKAGES, "git", "make", "gcc", "libc6-dev", "clang", "libbpf-dev", "docker.io", "iptables", "apparmor"),
    *("prometheus", "mmdebstrap", "bpftrace", "podman"),  # `make test` asks for them
)
_WITHOUT_WHEEL = ("forbiddenfruit",)  # on PyPI as a source alone; pure Python
_HOME = "root"
BUNDLE, WHEELS = f"/{_HOME}/kickwatch.bundle", f"/{_HOME}/wheels"
_FREE_MB = 3000  # the virtual environment with all that tests need, images and containers


def ordinary(wheel: Path, cache: Path) -> Path:
    """The disk image. `wheel` is kickwatch's: it names what is to be fetched."""
    commit = said(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()

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
    """A script that runs `command` in a fresh clone of the bundle, made where there is none."""
    clone = f"/{_HOME}/kickwatch"
    return os.linesep.join((f"[ -d {clone} ] || git clone --quiet {BUNDLE} {clone}", f"cd {clone}", command))
