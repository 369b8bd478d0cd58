"""Where the memory cgroups are, what they say about kernel memory, and the making and removing of our own.

Parsing is pure; every file is reached from roots given as arguments. All calls are short and synchronous: from the
event loop use `asyncio.to_thread`. Sources: cgroups(7), proc_pid_mountinfo(5), the kernel's cgroup-v1/memory.rst and
cgroup-v2.rst.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from errno import EAGAIN, EBUSY, ENOSYS
from pathlib import Path
from typing import Self

from kickwatch.errors import CgroupError
from kickwatch.node.roots import HOST, HostRoots

OWN_PREFIX = "kickwatch"
_RMDIR_ATTEMPTS = 20
_RMDIR_PAUSE_S = 0.05


class CgroupVersion(StrEnum):
    """The hierarchy that has the memory controller; a hybrid node with memory on v1 is `v1`."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class CgroupMount:
    """One line of mountinfo: `root` is the cgroup that is visible at `point`; v1 controllers, none on v2."""

    root: str
    point: Path
    is_v2: bool
    controllers: frozenset[str]


@dataclass(frozen=True)
class Cgroups:
    """The node's cgroup hierarchies: where each is mounted (`mounts`) and which one has the memory controller."""

    version: CgroupVersion
    memory_root: Path
    memory_mount_root: str
    mounts: tuple[Path, ...]
    proc: Path

    @classmethod
    def read(cls, host: HostRoots = HOST) -> Self:
        """Read the mount table of this process. Raises CgroupError."""
        path = host.proc / "self" / "mountinfo"
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CgroupError(f"{path} cannot be read ({error.strerror})", "see that proc is mounted there") from error
        return cls.locate(parse_mountinfo(text), host)

    @classmethod
    def locate(cls, mounts: tuple[CgroupMount, ...], host: HostRoots = HOST) -> Self:
        """Pure. A hierarchy mounted more than once is taken where most of it is visible."""
        by_width = sorted(mounts, key=lambda mount: len(mount.root))
        memory = next((mount for mount in by_width if "memory" in mount.controllers), None)
        memory = memory or next((mount for mount in by_width if mount.is_v2), None)
        if memory is None:
            raise CgroupError("no cgroup hierarchy with the memory controller is mounted", "mount cgroup2")
        points = dict.fromkeys(host.root / mount.point.relative_to("/") for mount in mounts)
        version = CgroupVersion.V2 if memory.is_v2 else CgroupVersion.V1
        return cls(version, host.root / memory.point.relative_to("/"), memory.root, tuple(points), host.proc)

    def memcg_dir_of(self, pid: int | str) -> Path:
        """Directory of the memory cgroup of process `pid` (or `self`). Raises CgroupError when it has none in sight."""
        path = self.proc / str(pid) / "cgroup"
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise CgroupError(f"{path} cannot be read ({error.strerror})", "the process may have ended") from error
        cgroup = parse_pid_cgroup(text).get("memory" if self.version is CgroupVersion.V1 else "")
        if cgroup is None:
            raise CgroupError(f"{path} names no memory cgroup", f"expected cgroup {self.version}")
        below = Path(cgroup)
        if ".." in below.parts or not below.is_relative_to(self.memory_mount_root):
            raise CgroupError(
                f"the memory cgroup {cgroup} of process {pid} is not visible below {self.memory_root}",
                "run in the host's cgroup namespace",
            )
        return self.memory_root / below.relative_to(self.memory_mount_root)

    def ensure_own(self, name: str, base: Path | None = None) -> Path:
        """Make (or find) the cgroup `name` of ours below `base`, whose children will be memory cgroups.

        `base` is the memory root unless another is given. On v2 a child has a memory controller only where its parent
        hands it on; the base is changed only if it does not already. Raises CgroupError.
        """
        base = base or self.memory_root
        directory = base / _own(name)
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise CgroupError(f"{directory} cannot be made ({error.strerror})", "run as root") from error
        if self.version is CgroupVersion.V2:
            for parent in (base, directory):
                _hand_on_memory(parent)
        return directory


def parse_mountinfo(text: str) -> tuple[CgroupMount, ...]:
    """The cgroup mounts of a mountinfo file, in its order; every other line is left alone."""
    found = []
    for line in text.splitlines():
        fields, separator, tail = line.partition(" - ")
        words, kind = fields.split(), tail.split()
        if not separator or len(words) < 5 or not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        options = kind[2].split(",") if len(kind) > 2 else []
        is_v2 = kind[0] == "cgroup2"
        controllers = frozenset() if is_v2 else frozenset(options)
        found.append(CgroupMount(_unescape(words[3]), Path(_unescape(words[4])), is_v2, controllers))
    return tuple(found)


def parse_pid_cgroup(text: str) -> dict[str, str]:
    """Controller to cgroup path from a /proc/PID/cgroup; v2 under the empty name, named hierarchies as `name=...`."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        # The kernel appends this to a cgroup that was removed under a living process.
        paths |= dict.fromkeys(controllers.split(","), path.removesuffix(" (deleted)"))
    return paths


def kmem_usage_bytes(memcg: Path) -> int | None:
    """Kernel memory charged to `memcg` now; None where the kernel does not say.

    v1 `memory.kmem.usage_in_bytes`; v2 `memory.stat`: `kernel` ("memcg: add per-memcg total kernel memory stat",
    5.18), before that `slab`. Those statistics may be two seconds old ("memcg: infrastructure to flush memcg stats",
    5.15); reading `cpu.stat` brings all of a cgroup's up to date, on kernels that keep them in one tree.
    """
    usage = _read(memcg / "memory.kmem.usage_in_bytes")
    if usage is not None:
        return int(usage)
    told = _kernel_bytes(memcg)
    if told == 0:
        _read(memcg / "cpu.stat")
        told = _kernel_bytes(memcg)
    return told


def _kernel_bytes(memcg: Path) -> int | None:
    stat = dict(line.split() for line in (_read(memcg / "memory.stat") or "").splitlines())
    value = stat.get("kernel", stat.get("slab"))
    return None if value is None else int(value)


def handed_on_by(cgroup: Path) -> frozenset[str]:
    """The controllers that a v2 cgroup gives its children; none where it cannot be read."""
    return frozenset((_read(cgroup / "cgroup.subtree_control") or "").split())


def reclaim(memcg: Path) -> str:
    """Push out what `memcg` and its dying children hold; returns why not all of it went, empty for success.

    v1 `memory.force_empty`; v2 `memory.reclaim` ("memcg: introduce per-memcg reclaim interface", 5.19) of all it has.
    """
    if (memcg / "memory.force_empty").exists():
        path, amount = memcg / "memory.force_empty", "0"
    else:
        path, amount = memcg / "memory.reclaim", (_read(memcg / "memory.current") or "").strip()
        if amount == "0":
            return ""
    try:
        path.write_text(amount, encoding="ascii")
    except OSError as error:
        return f"{path}: {'less could be reclaimed than asked' if error.errno == EAGAIN else error.strerror}"
    return ""


def nokmem(command_line: str) -> bool:
    """True when a kernel command line turns kernel memory accounting off: `cgroup.memory=nokmem`, lists too."""
    for word in command_line.replace('"', "").split():
        if word == "--":  # the rest belongs to init
            break
        key, _, value = word.partition("=")
        if key == "cgroup.memory" and "nokmem" in value.split(","):
            return True
    return False


def remove_tree(directory: Path, *, kill: bool = False, attempts: int = _RMDIR_ATTEMPTS) -> tuple[Path, ...]:
    """Remove a cgroup of ours with all below it, deepest first; returns the directories that remain.

    EBUSY is tried again, `attempts` times 50 ms in all: a process that exits leaves its cgroup a little later. What
    holds processes stays, and they are left alone, unless `kill`. Raises CgroupError if the name is not one of ours.
    """
    _own(directory.name)
    remaining: list[Path] = []
    for path in _deepest_first(directory):
        while not _rmdir(path, kill=kill):
            attempts -= 1
            if attempts <= 0:
                remaining.append(path)
                break
            time.sleep(_RMDIR_PAUSE_S)
    return tuple(remaining)


def _rmdir(path: Path, *, kill: bool) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != EBUSY:
            raise CgroupError(f"{path} cannot be removed ({error.strerror})", "remove it with rmdir") from error
        if kill:
            _kill_members(path)
        return False
    return True


def _kill_members(cgroup: Path) -> None:
    """SIGKILL through a pidfd taken before membership is read again: it cannot hit a later process of that number."""
    procs = cgroup / "cgroup.procs"
    for pid in (_read(procs) or "").split():
        if int(pid) in {0, os.getpid()}:
            continue
        with suppress(ProcessLookupError):
            try:
                pidfd = os.pidfd_open(int(pid))
            except OSError as error:
                if error.errno != ENOSYS:  # "pid: add pidfd_open()", 5.3
                    raise
                if pid in (_read(procs) or "").split():
                    os.kill(int(pid), signal.SIGKILL)
                continue
            try:
                if pid in (_read(procs) or "").split():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _deepest_first(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            children = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in sorted(children):
        yield from _deepest_first(child)
    yield directory


def _hand_on_memory(cgroup: Path) -> None:
    if "memory" not in (_read(cgroup / "cgroup.controllers") or "").split():
        raise CgroupError(
            f"{cgroup} has no memory controller", "boot without cgroup_disable=memory, or unmount the v1 hierarchy"
        )
    control = cgroup / "cgroup.subtree_control"
    if "memory" in handed_on_by(cgroup):
        return
    try:
        control.write_text("+memory", encoding="ascii")
    except OSError as error:
        remedy = "run as root on the host"
        if error.errno == EBUSY:  # a v2 cgroup hands controllers on only while no process is in it: cgroup-v2.rst
            remedy = f"{cgroup} holds other processes: start kickwatch in a unit of its own, as its unit file does"
        raise CgroupError(f"{control}: +memory was refused ({error.strerror})", remedy) from error


def _own(name: str) -> str:
    if not name.startswith(OWN_PREFIX) or "/" in name:
        raise CgroupError(f"the cgroup {name} is not one of ours", f"ours begin with {OWN_PREFIX}")
    return name


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None


def _unescape(field: str) -> str:
    r"""Mountinfo writes space, tab, newline and backslash as three octal digits, `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
