"""Builds a .deb of kickwatch from its wheel: build.py --wheel FILE --suite bookworm|trixie [--out DIR]. See `make deb`.

The package has a virtual environment of its own, of kickwatch's wheel and of the wheels that requirements.txt names by
digest, for the Python of that suite. Two builds of one tree are equal to the last byte; their time is that of the last
commit, or SOURCE_DATE_EPOCH. debhelper and dpkg make the package; this script lays out its files.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import papers
import parts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = "usr/lib/kickwatch"
# Wheels for these run on glibc 2.28 and later; both suites have a newer one.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
# A name that a wheel puts below its prefix, and where the package has it.
_PLACES = {
    "lib/systemd/system": "lib/systemd/system",  # debian/rules moves it where the suite has it in /usr/lib
    "lib/systemd/system-preset": "usr/lib/systemd/system-preset",
    "lib/systemd/catalog": "usr/lib/systemd/catalog",
    "lib/tmpfiles.d": "usr/lib/tmpfiles.d",
    "share/man": "usr/share/man",
    "share/doc/kickwatch/systemd.md": "usr/share/doc/kickwatch/systemd.md",
    "share/doc/kickwatch/events.md": "usr/share/doc/kickwatch/events.md",
    # Configuration, so that dpkg keeps an edited one and renews another (conffiles).
    "share/doc/kickwatch/kickwatch.toml": "etc/kickwatch/kickwatch.toml",
    "share/doc/kickwatch/oci.conf": "etc/kickwatch/oci.conf",
    "share/doc/kickwatch/sys-admin.conf": "etc/kickwatch/sys-admin.conf",
}
_DROP_INS = "/etc/systemd/system/kickwatch.service.d"
# In their texts: the paths of a virtual environment in /opt, and the package's.
_PATHS = (
    *(
        (
            f"install -D -m 644 /opt/kickwatch/share/doc/kickwatch/{name} {_DROP_INS}/{name}",
            f"mkdir -p {_DROP_INS}\nln -s /etc/kickwatch/{name} {_DROP_INS}",
        )
        for name in ("oci.conf", "sys-admin.conf")
    ),
    ("/opt/kickwatch/share/doc/kickwatch", "/usr/share/doc/kickwatch"),
    ("/opt/kickwatch", f"/{HOME}"),
    ("/usr/local/lib/", "/usr/lib/"),
)
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/kickwatch",
    "zsh": "usr/share/zsh/vendor-completions/_kickwatch",
    "fish": "usr/share/fish/vendor_completions.d/kickwatch.fish",
}
_LAUNCHER = f"""#!/{HOME}/bin/python3
import sys

from kickwatch.cli import main

sys.exit(main())
"""


class BuildError(Exception):
    """What prevents the build, with its remedy."""


@dataclass(frozen=True)
class Target:
    """A suite of Debian: the version of its Python, and its part of the package's version, which sorts by release."""

    suite: str
    python: tuple[int, int]
    suffix: str

    @property
    def depends(self) -> str:
        """Only that Python can import the modules that are compiled for it."""
        major, minor = self.python
        return f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})"


TARGETS = {
    "bookworm": Target("bookworm", (3, 11), "deb12"),
    "trixie": Target("trixie", (3, 13), "deb13"),
}


def debian_version(version: str, target: Target) -> str:
    """The package's version: 0.2.0+deb12, and 0.2.0~rc1+deb12 before it."""
    before = re.sub(r"[.]?(a|b|rc|dev)(?=[0-9])", r"~\1", version)
    return f"{before}+{target.suffix}"


def build(wheel: Path, target: Target, out: Path, epoch: int) -> Path:
    """Build the package and the list of its parts in `out`; returns the package."""
    machine = wheel.stem.rpartition("manylinux_2_17_")[2]
    architecture = _DEBIAN.get(machine)
    if architecture is None:
        raise BuildError(f"{wheel.name} is for no machine that Debian has a kickwatch for: {', '.join(_DEBIAN)}")
    with tempfile.TemporaryDirectory(prefix="kickwatch-deb-") as scratch:
        tree = Path(scratch) / "kickwatch"
        shutil.copytree(HERE / "package", tree / "debian")
        wheels = [wheel, *_dependencies(Path(scratch) / "wheels", target, machine)]
        found = [*map(parts.of_wheel, wheels), *parts.linked(architecture, cross=machine != platform.machine())]
        version = debian_version(found[0].version, target)
        bom = json.dumps(papers.sbom(found, version, architecture, epoch), indent=2) + "\n"
        _lay_out(tree / "root", target, wheels)
        _write(tree / "root/usr/share/doc/kickwatch/kickwatch.cdx.json", bom)
        _write_papers(tree / "debian", target, version, found, epoch)
        package = f"kickwatch_{version}_{architecture}"
        given = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        options = ["--build=binary", "--no-sign", f"--host-arch={architecture}", "--no-check-builddeps"]
        _run(["dpkg-buildpackage", *options], cwd=tree, environment=given)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(scratch) / f"{package}.deb", out / f"{package}.deb")
        _write(out / f"{package}.cdx.json", bom)
    return out / f"{package}.deb"


def _dependencies(into: Path, target: Target, machine: str) -> list[Path]:
    """The wheels that requirements.txt names, by digest."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", f"--dest={into}"]
    major, minor = target.python
    chosen = [f"--python-version={major}.{minor}", *(f"--platform={name}_{machine}" for name in _PLATFORMS)]
    locked = ["--no-deps", "--require-hashes", "--requirement", str(HERE / "requirements.txt")]
    _run([*pip, "--only-binary=:all:", *chosen, *locked])
    return sorted(into.glob("*.whl"))


def _lay_out(root: Path, target: Target, wheels: Sequence[Path]) -> None:
    """The files of the package: the environment in HOME, and what other programs look for elsewhere."""
    major, minor = target.python
    home, site = root / HOME, root / HOME / f"lib/python{major}.{minor}/site-packages"
    prefix = root / "unpacked"
    for wheel in wheels:
        _unpack(wheel, site, prefix)
    for name, place in _PLACES.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).rename(root / place)
    shutil.rmtree(prefix)
    _write(home / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {major}.{minor}\n")
    _write(home / "bin/kickwatch", _LAUNCHER, mode=0o755)
    (home / "bin/python3").symlink_to("../../../bin/python3")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/kickwatch").symlink_to("../lib/kickwatch/bin/kickwatch")
    for shell, place in _COMPLETIONS.items():
        _write(root / place, _run([sys.executable, "-m", "kickwatch", "completion", shell], cwd=ROOT / "daemon"))
    rename_paths(root)


def _unpack(wheel: Path, site: Path, prefix: Path) -> None:
    """What an installer does with a wheel, except for its scripts and RECORD: the package has dpkg's list of files."""
    with zipfile.ZipFile(wheel) as content:
        for entry in content.infolist():
            kind, _, name = entry.filename.partition(".data/")[2].partition("/")
            if entry.is_dir() or kind in {"scripts", "headers"} or entry.filename.endswith(".dist-info/RECORD"):
                continue
            place = prefix / name if kind == "data" else site / (name or entry.filename)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read(entry))
            place.chmod(0o755 if "/native/bin/" in entry.filename else 0o644)


def rename_paths(root: Path) -> None:
    """In the files that _PLACES names, replace the paths of an installation in /opt with those of the package."""
    names = [place for place in _PLACES.values() if "/man" not in place]
    for path in (path for name in names for path in [root / name, *(root / name).rglob("*")] if path.is_file()):
        text = path.read_text(encoding="utf-8")
        for old, new in _PATHS:
            # In a comment, each further line of the new text is a comment, too.
            margin = re.search(f"^(.*){re.escape(old)}", text, re.MULTILINE)
            text = text.replace(old, new.replace("\n", f"\n{margin[1]}") if margin else new)
        path.write_text(text, encoding="utf-8")


def _write_papers(debian: Path, target: Target, version: str, found: Sequence[parts.Part], epoch: int) -> None:
    changes = papers.changes_of((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), found[0].version)
    _write(debian / "changelog", papers.changelog(version, target.suite, changes, epoch))
    _write(debian / "copyright", papers.copyright_file(found))
    linked = sorted({part.source for part in found if part.source})
    _write(
        debian / "substvars.kickwatch", f"python:Depends={target.depends}\nkickwatch:Built-Using={', '.join(linked)}\n"
    )
    overrides, own = debian / "kickwatch.lintian-overrides", debian / f"lintian-overrides.{target.suite}"
    if own.exists():
        _write(overrides, overrides.read_text(encoding="utf-8") + own.read_text(encoding="utf-8"))
    control = (debian / "control").read_text(encoding="utf-8").replace("@MAINTAINER@", papers.MAINTAINER)
    _write(debian / "control", control)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _run(command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    if done.returncode:
        tail = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[-20:])
        raise BuildError(f"{' '.join(command)[:200]} failed with status {done.returncode}:\n{tail}")
    return done.stdout


def _epoch() -> int:
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    try:
        return int(_run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]))
    except (BuildError, FileNotFoundError) as error:
        raise BuildError(f"{ROOT} is no git repository, so set SOURCE_DATE_EPOCH to the time of the release") from error


def _own_suite() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")


def main() -> int:
    """Build what the arguments say; the exit status is 1 if that fails."""
    own = _own_suite()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--suite", choices=TARGETS, default=own if own in TARGETS else "bookworm")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    given = parser.parse_args()
    missing = [name for name in ("dh", "dpkg-buildpackage") if shutil.which(name) is None]
    try:
        if missing:
            raise BuildError(f"{' and '.join(missing)} missing: deploy/setup deb-packages")
        made = build(given.wheel.resolve(), TARGETS[given.suite], given.out, _epoch())
    except (BuildError, parts.PartError) as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    print(f"deb: {made}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
