"""Finds the memory cgroups, reads their kernel memory, and creates our own.

Parsing is pure. All calls are short and synchronous: from the event loop use `asyncio.to_thread`. Sources: cgroups(7),
proc_pid_mountinfo(5), the kernel's cgroup-v1/memory.rst and cgroup-v2.rst.
"""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from errno import EAGAIN, EBUSY
from pathlib import Path
from typing import Self

from kickwatch.errors import CgroupError
from kickwatch.node.roots import HOST, HostRoots

OWN_PREFIX = "kickwatch"


class CgroupVersion(StrEnum):
    """Version of the hierarchy with the memory controller; a hybrid node with memory on v1 is `v1`."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class CgroupMount:
    """One line of mountinfo: `root` is the cgroup that is visible at `point`. `controllers` are empty on v2."""

    root: str
    point: Path
    is_v2: bool
    controllers: frozenset[str]


@dataclass(frozen=True)
class Cgroups:
    """The node's cgroup hierarchies: the mount point of each (`mounts`), and the one with the memory controller."""

    version: CgroupVersion
    memory_root: Path
    memory_mount_root: str
    mounts: tuple[Path, ...]
    proc: Path

    @classmethod
    def read(cls, host: HostRoots = HOST) -> Self:
        """Read the mounts of this process (mountinfo). Raises CgroupError."""
        path = host.proc / "self" / "mountinfo"
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CgroupError(
                f"{path} cannot be read ({error.strerror})", "check that proc is mounted there"
            ) from error
        return cls.locate(parse_mountinfo(text), host)

    @classmethod
    def locate(cls, mounts: tuple[CgroupMount, ...], host: HostRoots = HOST) -> Self:
        """Pure. Of several mounts of a hierarchy the one that shows most of it is used."""
        by_width = sorted(mounts, key=lambda mount: len(mount.root))
        memory = next((mount for mount in by_width if "memory" in mount.controllers), None)
        memory = memory or next((mount for mount in by_width if mount.is_v2), None)
        if memory is None:
            raise CgroupError("no cgroup hierarchy with the memory controller is mounted", "mount cgroup2")
        points = dict.fromkeys(host.root / mount.point.relative_to("/") for mount in mounts)
        version = CgroupVersion.V2 if memory.is_v2 else CgroupVersion.V1
        return cls(version, host.root / memory.point.relative_to("/"), memory.root, tuple(points), host.proc)

    def memcg_dir_of(self, pid: int | str) -> Path:
        """Directory of the memory cgroup of process `pid` (or `self`). Raises CgroupError if it is not visible."""
        file = self.proc / str(pid) / "cgroup"
        try:
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CgroupError(f"{file} cannot be read ({error.strerror})", "the process may have ended") from error
        cgroup = parse_pid_cgroup(text).get("memory" if self.version is CgroupVersion.V1 else "")
        if cgroup is None:
            raise CgroupError(f"{file} names no memory cgroup", f"expected cgroup {self.version}")
        # In a cgroup namespace both are relative to its root: `/../../kickwatch/1` below the mount of `/../..`.
        root, path = Path(self.memory_mount_root), Path(cgroup)
        if path.is_relative_to(root) and ".." not in path.relative_to(root).parts:
            return self.memory_root / path.relative_to(root)
        if ".." in root.parts and (found := self._listing(os.getpid() if pid == "self" else int(pid))):
            return found
        if not file.exists():  # it ended during that walk
            gone = FileNotFoundError(str(file))
            raise CgroupError(f"{file} has disappeared", "the process may have ended") from gone
        raise CgroupError(
            f"the memory cgroup {cgroup} of process {pid} is not visible below {self.memory_root}",
            "run in the host's cgroup namespace, or mount the host's cgroup file system",
        )

    def _listing(self, pid: int) -> Path | None:
        """The memory cgroup that lists a process, where its path does not say where in the host's tree it is."""
        for directory, _, _ in os.walk(self.memory_root):
            if str(pid) in (read_text(Path(directory) / "cgroup.procs") or "").split():
                return Path(directory)
        return None

    def ensure_own(self, name: str, base: Path | None = None) -> Path:
        """Create (or find) our cgroup `name` below `base` (the memory root); its children will be memory cgroups.

        On v2 a child has a memory controller only if its parent enables it for its children: that is done for `base`,
        unless it already is, and for the new cgroup. Raises CgroupError.
        """
        base = base or self.memory_root
        directory = base / own_name(name)
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise CgroupError(f"{directory} cannot be created ({error.strerror})", "run as root") from error
        if self.version is CgroupVersion.V2:
            for parent in (base, directory):
                _enable_memory(parent)
        return directory


def parse_mountinfo(text: str) -> tuple[CgroupMount, ...]:
    """The cgroup mounts of a mountinfo file, in its order; every other line is ignored."""
    found = []
    for line in text.splitlines():
        fields, separator, tail = line.partition(" - ")
        words, kind = fields.split(), tail.split()
        if not separator or len(words) < 5 or not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        options = kind[2].split(",") if len(kind) > 2 else []
        is_v2 = kind[0] == "cgroup2"
        controllers = frozenset() if is_v2 else frozenset(options)
        found.append(CgroupMount(unescape(words[3]), Path(unescape(words[4])), is_v2, controllers))
    return tuple(found)


def parse_pid_cgroup(text: str) -> dict[str, str]:
    """Controller to cgroup path from a /proc/PID/cgroup; v2 under the empty name, named hierarchies as `name=...`."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        # The kernel appends this to a cgroup that was removed while a process of it still runs.
        paths |= dict.fromkeys(controllers.split(","), path.removesuffix(" (deleted)"))
    return paths


def kmem_usage_bytes(memcg: Path) -> int | None:
    """Kernel memory charged to `memcg` now; None if the kernel does not tell.

    v1 `memory.kmem.usage_in_bytes`; v2 `memory.stat`: `kernel` ("memcg: add per-memcg total kernel memory stat",
    5.18), before that `slab`. Those statistics may be two seconds old ("memcg: infrastructure to flush memcg stats",
    5.15); reading `cpu.stat` updates all statistics of a cgroup, on kernels that keep them in one tree.
    """
    usage = read_text(memcg / "memory.kmem.usage_in_bytes")
    if usage is not None:
        return int(usage)
    charged = _kernel_bytes(memcg)
    if charged == 0:
        read_text(memcg / "cpu.stat")
        charged = _kernel_bytes(memcg)
    return charged


def _kernel_bytes(memcg: Path) -> int | None:
    stat = dict(line.split() for line in (read_text(memcg / "memory.stat") or "").splitlines())
    value = stat.get("kernel", stat.get("slab"))
    return None if value is None else int(value)


def enabled_controllers(cgroup: Path) -> frozenset[str]:
    """The controllers that a v2 cgroup enables for its children; empty if they cannot be read."""
    return frozenset((read_text(cgroup / "cgroup.subtree_control") or "").split())


def reclaim(memcg: Path) -> str:
    """Reclaim the memory of `memcg` and its dying children; returns why some of it remains, empty for success.

    v1 `memory.force_empty`; v2 `memory.reclaim` ("memcg: introduce per-memcg reclaim interface", 5.19) of all memory.
    """
    if (memcg / "memory.force_empty").exists():
        path, amount = memcg / "memory.force_empty", "0"
    else:
        path, amount = memcg / "memory.reclaim", (read_text(memcg / "memory.current") or "").strip()
        if amount == "0":
            return ""
    try:
        path.write_text(amount, encoding="ascii")
    except OSError as error:
        return f"{path}: {'not all memory could be reclaimed' if error.errno == EAGAIN else error.strerror}"
    return ""


def nokmem(command_line: str) -> bool:
    """True if a kernel command line turns kernel memory accounting off: `cgroup.memory=nokmem`, also in a list."""
    for word in command_line.replace('"', "").split():
        if word == "--":  # the rest is for init
            break
        key, _, value = word.partition("=")
        if key == "cgroup.memory" and "nokmem" in value.split(","):
            return True
    return False


def _enable_memory(cgroup: Path) -> None:
    if "memory" not in (read_text(cgroup / "cgroup.controllers") or "").split():
        raise CgroupError(
            f"{cgroup} has no memory controller", "boot without cgroup_disable=memory, or unmount the v1 hierarchy"
        )
    control = cgroup / "cgroup.subtree_control"
    if "memory" in enabled_controllers(cgroup):
        return
    try:
        control.write_text("+memory", encoding="ascii")
    except OSError as error:
        remedy = "run as root on the host"
        if error.errno == EBUSY:  # a v2 cgroup with processes cannot enable controllers for children: cgroup-v2.rst
            remedy = f"{cgroup} contains other processes: start kickwatch in its own unit, as its unit file does"
        raise CgroupError(f"the kernel refused +memory in {control} ({error.strerror})", remedy) from error


def own_name(name: str) -> str:
    """The name if it is one of our cgroups'. Raises CgroupError for any other."""
    if not name.startswith(OWN_PREFIX) or "/" in name:
        raise CgroupError(f"the cgroup {name} is not one of ours", f"our names begin with {OWN_PREFIX}")
    return name


def read_text(path: Path) -> str | None:
    """The text of a file; None if it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None


def unescape(field: str) -> str:
    r"""Mountinfo has space, tab, newline and backslash as three octal digits, `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
