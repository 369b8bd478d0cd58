"""Find, fetch and unpack the current kernels of Debian's archive, with a separate apt configuration.

The machine's own apt lists and packages do not change. Fetched kernels are cached by version. If the archive does not
answer, the lists of the last run are used.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shell import LabError, output_of, run

MIRROR = os.environ.get("KICKWATCH_LAB_MIRROR", "http://deb.debian.org")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Architecture(StrEnum):
    """Debian's name of a machine."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Suite(StrEnum):
    """The Debian release of a kernel, oldest first: 5.10, 6.1, 6.12, and the newest kernel; `-rt` with PREEMPT_RT."""

    BULLSEYE = "bullseye"
    BOOKWORM = "bookworm"
    TRIXIE = "trixie"
    SID = "sid"
    BOOKWORM_RT = "bookworm-rt"
    TRIXIE_RT = "trixie-rt"

    @property
    def base(self) -> str:
        """The suite's name in the archive."""
        return self.value.removesuffix("-rt")

    @property
    def flavour(self) -> str:
        """What the names of its kernels have before the architecture."""
        return "rt-" if self.value.endswith("-rt") else ""

    def sources(self, architecture: Architecture) -> tuple[str, ...]:
        """Lines of a sources.list: the suite, and its security updates if it has any that can be fetched.

        Since the end of bullseye's support most arm64 packages of its updates are listed but gone (404).
        """
        parts = [("debian", self.base)]
        if self is not Suite.SID and (self, architecture) != (Suite.BULLSEYE, Architecture.ARM64):
            parts.append(("debian-security", f"{self.base}-security"))
        return tuple(f"deb [signed-by={_KEYRING}] {MIRROR}/{archive} {suite} main" for archive, suite in parts)


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: `release` is `uname -r`, `version` the package's, `root` holds boot/ and lib/modules/."""

    suite: Suite
    release: str
    version: str
    root: Path
    architecture: Architecture = Architecture.AMD64

    @property
    def image(self) -> Path:
        """The bzImage, or arm64's Image; in sid it is next to the modules."""
        old = self.root / "boot" / f"vmlinuz-{self.release}"
        return old if old.exists() else self.modules / "vmlinuz"

    @property
    def modules(self) -> Path:
        """The directory of its modules."""
        return self.root / "lib/modules" / self.release

    def has(self, line: str) -> bool:
        """Whether its configuration has this line; `=n` means not set."""
        old = self.root / "boot" / f"config-{self.release}"
        config = (old if old.exists() else self.modules / "config").read_text("ascii", errors="replace")
        option, _, value = line.partition("=")
        return f"# {option} is not set\n" in config if value == "n" else f"{line}\n" in config

    @property
    def name(self) -> str:
        """Its major and minor number: 6.12, or 6.12-rt."""
        return ".".join(self.release.split(".")[:2]) + f"-{self.suite.flavour}".rstrip("-")


# Signed lists are valid for a week; on a machine with a wrong clock they must be accepted.
_APT_CONF = """\
Dir "{home}";
Dir::State "{home}/state";
Dir::State::status "{home}/status";
Dir::Cache "{home}/cache";
Dir::Etc "{home}/etc";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
"""


class Archive:
    """One suite of the archive, its lists and packages below `cache`."""

    def __init__(self, suite: Suite, cache: Path, architecture: Architecture = Architecture.AMD64) -> None:
        self.suite = suite
        self.architecture = architecture
        self._marker = suite.value if architecture is Architecture.AMD64 else f"{suite}-{architecture}"
        self._home = cache / "apt" / self._marker
        self._kernels = cache / "kernels"
        self._listed = False

    def newest(self) -> Kernel:
        """The newest kernel of the suite; it need not be unpacked yet. Raises LabError."""
        self._update()
        kind = f"{self.suite.flavour}{self.architecture}"
        shown = self._apt("apt-cache", "show", "--no-all-versions", f"linux-image-{kind}")
        found = re.search(rf"^Depends:.*?linux-image-(\S+-{kind}) \(= (\S+)\)", shown, re.MULTILINE)
        if found is None:
            raise LabError(f"linux-image-{kind} of {self.suite} names no kernel: {shown}")
        release, version = found.groups()
        return Kernel(self.suite, release, version, self._kernels / f"{release}_{version}", self.architecture)

    def unpacked(self) -> Kernel:
        """The newest kernel, fetched and unpacked; older ones of the suite are deleted."""
        kernel = self.newest()
        if not kernel.root.exists():
            new = kernel.root.with_name(f"{kernel.root.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for package in self._packages(kernel):
                file = self._fetch(f"{package}={kernel.version}", new)
                run(["dpkg-deb", "--extract", file, new])
                file.unlink()
            if (new / "usr/lib/modules").is_dir():  # since trixie
                (new / "lib").symlink_to("usr/lib")
            run(["depmod", "--basedir", new, kernel.release])
            self._delete_others(kernel)
            new.rename(kernel.root)
            (kernel.root / "suite").write_text(self._marker, encoding="ascii")
        return kernel

    def _delete_others(self, kernel: Kernel) -> None:
        for marker in self._kernels.glob("*/suite"):
            if marker.read_text(encoding="ascii") == self._marker and marker.parent != kernel.root:
                shutil.rmtree(marker.parent)

    def _packages(self, kernel: Kernel) -> list[str]:
        """The packages of the kernel: one before 7.x, which has separate ones for binary and modules."""
        image = f"linux-image-{kernel.release}"
        shown = self._apt("apt-cache", "show", f"{image}={kernel.version}")
        parts = re.findall(rf"\b(linux-\w+-{re.escape(kernel.release)}) \(=", shown)
        return [image, *dict.fromkeys(parts)]

    def _fetch(self, package: str, into: Path) -> Path:
        self._apt("apt-get", "--quiet", "download", package, cwd=into)
        (found,) = into.glob("*.deb")
        return found

    def _update(self) -> None:
        if self._listed:
            return
        for directory in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
            (self._home / directory).mkdir(parents=True, exist_ok=True)
        (self._home / "status").touch()
        sources = "\n".join(self.suite.sources(self.architecture)) + "\n"
        (self._home / "etc/sources.list").write_text(sources, encoding="ascii")
        conf = _APT_CONF.format(home=self._home, architecture=self.architecture)
        (self._home / "apt.conf").write_text(conf, encoding="ascii")
        try:
            self._apt("apt-get", "--quiet", "update")
        except LabError:
            if not list((self._home / "state/lists").glob("*Packages*")):
                raise
        self._listed = True

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        return output_of(command, environment={"APT_CONFIG": str(self._home / "apt.conf")}, cwd=cwd)


def headers_root(kernel: Kernel, cache: Path) -> Path:
    """A file system of the kernel's suite with its headers, the compiler that they need, and make."""
    root = cache / "headers" / f"{kernel.release}_{kernel.version}"
    if not root.exists():
        new = root.with_name(f"{root.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        debootstrap(kernel.suite, new, (f"linux-headers-{kernel.release}", "make"), kernel.architecture)
        new.rename(root)
    return root


# The headers depend on a kernel since trixie, whose initramfs nobody boots, and which takes ten minutes in qemu-user.
_NO_INITRAMFS = (
    'chroot "$1" dpkg-divert --rename --divert /usr/sbin/update-initramfs.unused --add /usr/sbin/update-initramfs'
    ' && ln -s /bin/true "$1/usr/sbin/update-initramfs"'
)


def debootstrap(
    suite: Suite, target: Path, packages: tuple[str, ...], architecture: Architecture = Architecture.AMD64
) -> None:
    """A small Debian of `suite` with `packages`, by mmdebstrap; for another machine ten times as slow (qemu-user)."""
    left_out = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
    command += [f"--architectures={architecture}", f"--essential-hook={_NO_INITRAMFS}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in left_out]
    command += [f"--aptopt={line}" for line in ('Acquire::Check-Valid-Until "false"', 'Acquire::Check-Date "false"')]
    try:
        timeout_s = 1200 if architecture is Architecture.AMD64 else 3600
        run([*command, suite.base, target, *suite.sources(architecture)], timeout_s=timeout_s)
    except (LabError, subprocess.TimeoutExpired):
        shutil.rmtree(target, ignore_errors=True)
        raise
