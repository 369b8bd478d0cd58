"""Builds the OCI image of the daemon: Debian's Python, the wheel in a virtual environment, and nothing else.

    deploy/image/build.py --wheel dist/kickwatch-VERSION-py3-none-ARCH.whl [--output FILE.tar]

No registry takes part: mmdebstrap unpacks Debian's packages, whose signatures apt checks, pip fetches the wheels of the
dependencies, and oci_archive.py writes one file that `docker load`, `podman load` and `ctr images import` read. Two
builds of one wheel from the same packages are the same, byte for byte: SOURCE_DATE_EPOCH is the time of everything in
it (the time of the last commit, if it is not set). It needs root or user namespaces, and no engine.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from oci_archive import Image, write_archive

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MIRROR = os.environ.get("KICKWATCH_IMAGE_MIRROR", "http://deb.debian.org")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE, PYTHON = "trixie", "3.13"
# base-files: the release, and the texts of the common licences.
PACKAGES = ("base-files", "python3")
# No program but Python's, no shell. Licences stay.
LEFT_OUT = (
    "/usr/bin/*", "/usr/sbin/*", "/etc/cron.daily/*", "/etc/logrotate.d/*", "/etc/apt/*",
    "/usr/share/doc/*/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*",
    "/usr/share/debconf/*", "/usr/share/perl5/*", "/usr/share/bug/*", "/usr/lib/*/gconv/*", "/usr/share/zoneinfo/*",
    "/usr/lib/python3*/pydoc_data/*", "/usr/lib/python3*/lib-dynload/_test*",
)  # fmt: skip
KEPT = ("/usr/bin/python3*", "/usr/share/doc/*/copyright")
PREFIX = "/opt/kickwatch"
# Wheels for Debian's glibc are those of any older one.
PLATFORMS = ("manylinux_2_41", "manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux")
GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


class BuildError(Exception):
    """One line: what failed."""


@dataclass(frozen=True)
class Wheel:
    """The wheel that the image carries. `version` is its own: the image takes it from nowhere else."""

    path: Path
    version: str
    summary: str

    @classmethod
    def read(cls, path: Path) -> "Wheel":
        """Raises BuildError if it is no wheel of kickwatch."""
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
                metadata = HeaderParser().parsestr(archive.read(name).decode())
        except (OSError, zipfile.BadZipFile, StopIteration) as error:
            raise BuildError(f"{path} is not a wheel: {error or 'it has no metadata'}: run `make wheel`") from error
        return cls(path, metadata["Version"], metadata["Summary"])


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """The output of a command. Raises BuildError with the end of its output."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise BuildError(f"{command[0]} failed with status {done.returncode}:\n{tail}")
    return done.stdout


def commit() -> tuple[str, int]:
    """The commit of this tree and its time; without git the time has to be in SOURCE_DATE_EPOCH."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        revision, seconds = run("git", "-C", ROOT, "log", "-1", "--format=%H %ct").split()
    except (BuildError, OSError) as error:
        if not given:
            raise BuildError("this tree has no commit: set SOURCE_DATE_EPOCH to the time of the source") from error
        return "", int(given)
    return revision, int(given or seconds)


def fetch(wheel: Wheel, links: Path) -> None:
    """The wheel, those of its dependencies for the image's Python, and pip's, which installs them."""
    machine = platform.machine()
    shutil.copy(wheel.path, links)
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        f"--python-version={PYTHON}", *(f"--platform={name}_{machine}" for name in PLATFORMS),
        f"--dest={links}", f"{wheel.path}[cri]", "pip",
    )  # fmt: skip


def make_root(links: Path, layer: Path, epoch: int) -> None:
    """The file system as a tar: sorted, with the times of the packages, none later than `epoch`."""
    signed = f"[signed-by={KEYRING}] {MIRROR}"
    sources = (
        f"deb {signed}/debian {SUITE} main",
        f"deb {signed}/debian {SUITE}-updates main",
        f"deb {signed}/debian-security {SUITE}-security main",
    )
    run(
        "mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        "--skip=cleanup", f'--extract-hook={HERE}/hook "$1" {PREFIX} {links}',
        SUITE, layer, *sources,
        environment={"SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip


def image(wheel: Wheel, revision: str, epoch: int) -> Image:
    """What runs in it, and its labels. Kubernetes names the configuration file; `docker run` has the defaults."""
    labels = {
        "org.opencontainers.image.title": "kickwatch",
        "org.opencontainers.image.description": wheel.summary,
        "org.opencontainers.image.version": wheel.version,
        "org.opencontainers.image.licenses": "GPL-2.0-only",
        "org.opencontainers.image.base.name": f"Debian {SUITE}",
    }
    if revision:
        labels["org.opencontainers.image.revision"] = revision
    return Image(
        name=f"localhost/kickwatch:{wheel.version}",
        architecture=GO_ARCH[platform.machine()],
        created=epoch,
        entrypoint=(f"{PREFIX}/bin/kickwatch",),
        command=("run",),
        environment={
            "PATH": f"{PREFIX}/bin:/usr/bin",
            "LANG": "C.UTF-8",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONNODEBUGRANGES": "1",
        },
        labels=labels,
    )


def build(wheel: Wheel, output: Path) -> int:
    """Write the image to `output`; returns the size of its file system in bytes. Raises BuildError."""
    revision, epoch = commit()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kickwatch-image-") as scratch:
        links, layer = Path(scratch, "wheels"), Path(scratch, "layer.tar")
        links.mkdir()
        fetch(wheel, links)
        make_root(links, layer, epoch)
        write_archive(image(wheel, revision, epoch), layer, output)
        return layer.stat().st_size


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Builds the OCI image of the daemon, without a registry.")
    parser.add_argument("--wheel", type=Path, required=True, help="what `make wheel` built")
    parser.add_argument("--output", type=Path, help="the archive (build/image/kickwatch-VERSION-ARCH.tar)")
    given = parser.parse_args()
    try:
        wheel = Wheel.read(given.wheel)
        arch = GO_ARCH[platform.machine()]
        output = given.output or ROOT / f"build/image/kickwatch-{wheel.version}-{arch}.tar"
        unpacked = build(wheel, output)
    except BuildError as error:
        sys.exit(f"image: {error}")
    sizes = f"{output.stat().st_size / 1e6:.1f} MB, {unpacked / 1e6:.1f} MB unpacked"
    print(f"image: {output}: localhost/kickwatch:{wheel.version}, {sizes}", file=sys.stderr)


if __name__ == "__main__":
    main()
