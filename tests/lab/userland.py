"""The guests' user land: a Debian file system with kickwatch installed, and what is needed to boot a kernel into it.

Three artefacts, each cached under the digest of its inputs: the bare Debian (mmdebstrap), its disk image with this
tree's wheel installed by `deploy/install`, and for each kernel a disk image of its modules and a small initramfs.
"""

import hashlib
import json
import lzma
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive import Architecture, Kernel, Suite, debootstrap
from shell import LabError, run

ROOT = Path(__file__).parents[2]
SUITE = Suite.BOOKWORM
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "iproute2", "ca-certificates", "busybox-static"),
    *("python3-venv", "libbpf1", "runc", "crun", "apparmor"),
)
# On arm64 there is one file system, Docker included, because each takes ten minutes.
PACKAGES_OF = {Architecture.AMD64: PACKAGES, Architecture.ARM64: (*PACKAGES, "docker.io")}
# Not needed in the laboratory, and a disturbance for experiments.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-timesyncd.service"),
    *("serial-getty@ttyAMA0.service", "serial-getty@hvc0.service"),
    *("systemd-tmpfiles-clean.timer", "systemd-pstore.service", "systemd-networkd-wait-online.service"),
    *("prometheus.service", "prometheus-node-exporter.service", "podman.socket", "podman-auto-update.timer"),
)
PORT = "kickwatch.lab"
# Started by the test that needs them.
_MASKED_ON_ARM64 = ("docker.service", "docker.socket", "containerd.service")
# Tags of the wheels that run on bookworm (glibc 2.36).
_WHEELS_OF = {
    Architecture.AMD64: (),
    Architecture.ARM64: ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
}
_DISKS_KEPT = 3
_AGENT = "/opt/lab/agent.py"
_UNIT = f"""\
[Unit]
Description=Runs the commands of the laboratory
Requires=dev-virtio\\x2dports-{PORT}.device
After=dev-virtio\\x2dports-{PORT}.device

[Service]
ExecStart=/usr/bin/python3 {_AGENT} /dev/virtio-ports/{PORT}
TasksMax=infinity
LimitMEMLOCK=infinity
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root

[Install]
WantedBy=multi-user.target
"""
# /init of the initramfs: load the modules in order, mount the disks, start systemd.
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "$module"; done </modules
for attempt in $(/bin/busybox seq 100); do [ -e /dev/vdb ] && break; /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /root
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
/bin/busybox mount -o move /dev /root/dev
/bin/busybox umount /proc /sys
exec /bin/busybox switch_root /root /sbin/init
"""
_NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4")


@dataclass(frozen=True)
class Bootable:
    """The files for QEMU: a kernel, its initramfs, and the disks, which are not modified."""

    kernel: Kernel
    initramfs: Path
    disk: Path
    modules: Path


def bootable(kernel: Kernel, disk: Path, cache: Path) -> Bootable:
    """Everything to boot `kernel` into the user land on `disk`."""
    recipe = [_INIT, _NEEDED, "1"]
    home = cache / "boot" / f"{kernel.release}_{kernel.version}_{_digest(recipe)}"
    if not home.exists():
        new = home.with_name(f"{home.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        (new / "initramfs").write_bytes(_initramfs(kernel, bare_of(kernel.architecture, cache) / "bin/busybox"))
        _disk(kernel.modules.parent, new / "modules.img", free_mb=16)
        new.rename(home)
    return Bootable(kernel, home / "initramfs", disk, home / "modules.img")


def bare_of(architecture: Architecture, cache: Path) -> Path:
    """The bare Debian of a machine, without kickwatch."""
    name = "base" if architecture is Architecture.AMD64 else f"base-{architecture}"
    return base(cache, name, PACKAGES_OF[architecture], architecture)


def base(
    cache: Path,
    name: str = "base",
    packages: tuple[str, ...] = PACKAGES,
    architecture: Architecture = Architecture.AMD64,
) -> Path:
    """The bare Debian as a directory; built in a minute (arm64: in ten) unless it is cached."""
    wanted = cache / f"{name}-{_digest([SUITE, packages])}"
    if not wanted.exists():
        for old in cache.glob(f"{name}-????????????"):
            shutil.rmtree(old)
        new = cache / f"{wanted.name}.new"
        shutil.rmtree(new, ignore_errors=True)  # left by a killed laboratory
        debootstrap(SUITE, new, packages, architecture)
        new.rename(wanted)
    return wanted


def installed(wheel: Path, cache: Path, architecture: Architecture = Architecture.AMD64) -> Path:
    """The disk image of the Debian with `wheel`, which is of that machine, installed; cached."""
    bare = bare_of(architecture, cache)
    parts = [bare.name, wheel.read_bytes().hex(), (ROOT / "deploy/install").read_text("utf-8")]

    def fill(tree: Path) -> None:
        install(tree, wheel, architecture)
        if architecture is Architecture.ARM64:
            _mask(tree, _MASKED_ON_ARM64)

    return disk_of(_disk_name(architecture), bare, parts, fill, free_mb=1024)


def _disk_name(architecture: Architecture) -> str:
    return "disk" if architecture is Architecture.AMD64 else f"{architecture}-disk"  # globbed: one no prefix of another


def disk_of(name: str, bare: Path, parts: list[str], fill: Callable[[Path], None], *, free_mb: int) -> Path:
    """The disk image of `bare` with what `fill` adds; the newest images of this name stay in the cache.

    `parts`: everything that it depends on, except this file.
    """
    cache = bare.parent
    digest = _digest([*parts, Path(__file__).read_text("utf-8"), _agent_text()])
    wanted = cache / f"{name}-{digest}.img"
    if not wanted.exists():
        for old in sorted(cache.glob(f"{name}-*.img"), key=lambda image: image.stat().st_mtime)[: 1 - _DISKS_KEPT]:
            old.unlink()  # not the newest ones: a laboratory of another tree may use them
        tree = cache / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        run(["cp", "--archive", "--reflink=auto", bare, tree])
        fill(tree)
        _make_node(tree)
        new = cache / f"{wanted.name}.new"
        _disk(tree, new, free_mb=free_mb)
        shutil.rmtree(tree)
        new.rename(wanted)
    os.utime(wanted)
    return wanted


def build_wheel(into: Path, architecture: Architecture = Architecture.AMD64) -> Path:
    """This tree's wheel, as `make wheel` builds it, for this machine or cross-built."""
    of = [] if architecture is Architecture.AMD64 else [f"ARCH={architecture}"]
    run(["make", "--no-print-directory", "-C", ROOT, "wheel", f"WHEEL_DIR={into}", *of])
    (wheel,) = into.glob("kickwatch-*.whl")
    return wheel


def install(tree: Path, wheel: Path, architecture: Architecture, extra: str = "") -> None:
    """Run the installer of a release without a network; the dependencies are in a directory of wheels.

    `extra`: one of pyproject.toml, whose packages pip adds to the installation.
    """
    source = tree / "opt/source"
    links = source / "links"
    links.mkdir(parents=True)
    fetch_wheels(links, f"{wheel}[{extra}]" if extra else str(wheel), platforms=_WHEELS_OF[architecture])
    shutil.copytree(ROOT / "deploy", source / "deploy")
    (source / "dist").mkdir()
    shutil.copy(wheel, source / "dist")
    inside(tree, "/opt/source/deploy/install", "--find-links", "/opt/source/links")
    if extra:
        pip = ("/opt/kickwatch/bin/pip", "--quiet", "install", "--no-index", "--find-links", "/opt/source/links")
        inside(tree, *pip, f"kickwatch[{extra}]")
    shutil.rmtree(source)


def fetch_wheels(into: Path, *wanted: str, platforms: tuple[str, ...] = ()) -> None:
    """Download wheels with all dependencies for the guests' Python, without kickwatch's own."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    pip += [f"--platform={tag}" for tag in platforms]
    run([*pip, "--only-binary=:all:", "--python-version=3.11", f"--dest={into}", *wanted])
    for copy in into.glob("kickwatch-*.whl"):
        copy.unlink()


def inside(tree: Path, *command: str) -> str:
    """Run a command in a file system with /proc mounted; returns its output."""
    script = 'mount -t proc proc "$1/proc"; tree=$1; shift; exec chroot "$tree" "$@"'
    clean = ("/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")
    done = run(["unshare", "--mount", "sh", "-ec", script, "sh", tree, *clean, *command])
    return done.stdout + done.stderr


def _make_node(tree: Path) -> None:
    """Set the host name, install the agent as a service, and mask what would run by itself."""
    (tree / "etc/hostname").write_text("kickwatch-lab\n", encoding="ascii")
    (tree / "etc/machine-id").write_text("", encoding="ascii")
    agent = tree / _AGENT.lstrip("/")
    agent.parent.mkdir(parents=True)
    agent.write_text(_agent_text(), encoding="utf-8")
    units = tree / "etc/systemd/system"
    (units / "lab-agent.service").write_text(_UNIT, encoding="ascii")
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "lab-agent.service").symlink_to("/etc/systemd/system/lab-agent.service")
    _mask(tree, MASKED)
    (tree / "usr/lib/modules").mkdir(exist_ok=True)


def _mask(tree: Path, names: tuple[str, ...]) -> None:
    units = tree / "etc/systemd/system"
    for unit in names:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")


def _agent_text() -> str:
    return Path(__file__).with_name("agent.py").read_text("utf-8")


def _disk(tree: Path, image: Path, *, free_mb: int) -> None:
    """An ext4 image of a directory, with free space."""
    used_kb = int(run(["du", "--summarize", "--block-size=1K", tree]).stdout.split()[0])
    size_kb = used_kb * 12 // 10 + free_mb * 1024 + 16384
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image, f"{size_kb}k"])


def _initramfs(kernel: Kernel, busybox: Path) -> bytes:
    modules = list(_load_order(kernel))
    archive = _Cpio()
    for directory in ("bin", "lib"):
        archive.add(directory, b"", stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", busybox.read_bytes(), stat.S_IFREG | 0o755)
    archive.add("init", _INIT.encode(), stat.S_IFREG | 0o755)
    names = []
    for path in modules:
        content = path.read_bytes()
        name = path.name.removesuffix(".xz")
        archive.add(f"lib/{name}", lzma.decompress(content) if path.suffix == ".xz" else content, stat.S_IFREG | 0o644)
        names.append(f"/lib/{name}\n")
    archive.add("modules", "".join(names).encode(), stat.S_IFREG | 0o644)
    return archive.end()


def _load_order(kernel: Kernel) -> Iterator[Path]:
    """The modules needed to boot, each after its dependencies, without those built into the kernel."""
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in (kernel.modules / "modules.dep").read_text("ascii").splitlines():
        path, _, others = line.partition(":")
        needs[_module(path)] = (path, [_module(other) for other in others.split()])
    built_in = {_module(line) for line in (kernel.modules / "modules.builtin").read_text("ascii").splitlines()}
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in built_in or name in order:
            return
        if name not in needs:
            raise LabError(f"{kernel.release} has no module {name}")
        for other in needs[name][1]:
            visit(other)
        order[name] = None

    for name in (*_NEEDED, *_soft_needs(needs)):
        visit(name)
    return (kernel.modules / needs[name][0] for name in order)


def _soft_needs(needs: dict[str, tuple[str, list[str]]]) -> list[str]:
    """Modules that are requested by the name of an algorithm; newer kernels have them built in."""
    return [name for name in ("crc32c_generic", "virtio_rng") if name in needs]


def _module(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


class _Cpio:
    """An archive that the kernel unpacks at boot: format "newc", Documentation/driver-api/early-userspace."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def add(self, name: str, content: bytes, mode: int) -> None:
        """Add a file or directory."""
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self._parts += [_padded(header), _padded(content)]

    def end(self) -> bytes:
        """Finish the archive and return it."""
        self.add("TRAILER!!!", b"", 0)
        return b"".join(self._parts)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)


def _digest(recipe: object) -> str:
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
