"""Pressure on the node, in one reading: stall times, load, memory, the engine's disk, dying memory cgroups.

A figure is None if this kernel or path does not have it, or the file is cut off or malformed: nothing here raises.
Parsing is pure. Synchronous: from the event loop use `asyncio.to_thread`. Sources: the kernel's accounting/psi.rst and
cgroup-v2.rst, proc_meminfo(5), proc_loadavg(5), cgroups(7), statvfs(3).
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.roots import HOST, HostRoots

WALK_PERIOD_S = 60.0
MOST_DIRECTORIES = 20_000
_LEAF_LINKS = 2
# Each requires the text after the figure, since the figure itself may be cut off.
_SOME_AVG10 = re.compile(r"^some avg10=([0-9]{1,3}\.[0-9]{2}) ", re.MULTILINE)
_LOAD_1 = re.compile(r"^([0-9]{1,9}\.[0-9]{2}) ")
_MEMORY = re.compile(r"^(MemTotal|MemAvailable): +([0-9]{1,18}) kB\n", re.MULTILINE)
_DYING = re.compile(r"^nr_dying_descendants ([0-9]{1,18})\n", re.MULTILINE)
_MEMORY_CGROUPS = re.compile(r"^memory\t[0-9]{1,9}\t([0-9]{1,18})\t[01]\n", re.MULTILINE)


class Cause(StrEnum):
    """What pauses trials; the value is a label of metrics."""

    CPU_PRESSURE = "cpu_pressure"
    MEMORY_PRESSURE = "memory_pressure"
    IO_PRESSURE = "io_pressure"
    LOAD = "load"
    MEMORY = "memory"
    DISK = "disk"
    CONTAINERS = "containers"
    DYING_MEMCGS = "dying_memcgs"


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. `*_some_pct`: share of the last 10 s in which some task waited for that resource (PSI avg10)."""

    cpu_some_pct: float | None = None
    memory_some_pct: float | None = None
    io_some_pct: float | None = None
    load_per_cpu: float | None = None
    available_memory_pct: float | None = None
    engine_disk_free_pct: float | None = None
    containers: int | None = None
    dying_memcgs: int | None = None


@dataclass
class DyingMemcgs:
    """Counts the memory cgroups that were removed but still hold memory; keep one object between readings.

    v2 has the number in the root's `cgroup.stat` ("cgroup: add cgroup.stat interface with basic hierarchy stats", 4.14;
    None before). v1 has the number of all its cgroups in /proc/cgroups, including the dying; the live directories are
    subtracted. They are walked at most once in WALK_PERIOD_S; until then the last result is returned. `clock` is
    monotonic, in seconds.
    """

    cgroups: Cgroups
    clock: Callable[[], float] = time.monotonic
    _walked: tuple[float, int | None] | None = None

    def count(self) -> int | None:
        """The number now, on v1 at most a minute old; None if it is not known."""
        if self.cgroups.version is CgroupVersion.V2:
            return parse_dying(_read(self.cgroups.memory_root / "cgroup.stat"))
        now_s = self.clock()
        if self._walked is None or now_s - self._walked[0] >= WALK_PERIOD_S:
            self._walked = (now_s, self._count_v1())
        return self._walked[1]

    def _count_v1(self) -> int | None:
        if self.cgroups.memory_mount_root != "/":
            return None  # the rest of the hierarchy is not visible, and would count as dying
        all_of_them = parse_memory_cgroups(_read(self.cgroups.proc / "cgroups"))
        if all_of_them is None:
            return None
        live = live_directories(self.cgroups.memory_root)
        return None if live is None else max(0, all_of_them - live)


def read_pressure(
    engine_root: Path | None,
    containers: int | None,
    dying: DyingMemcgs | None,
    host: HostRoots = HOST,
) -> Pressure:
    """One reading. `engine_root` is where the engine keeps its containers; `containers` is returned unchanged."""
    return Pressure(
        cpu_some_pct=parse_psi(_read(host.proc / "pressure" / "cpu")),
        memory_some_pct=parse_psi(_read(host.proc / "pressure" / "memory")),
        io_some_pct=parse_psi(_read(host.proc / "pressure" / "io")),
        load_per_cpu=_load_per_cpu(_read(host.proc / "loadavg"), host.sys),
        available_memory_pct=parse_available_memory(_read(host.proc / "meminfo")),
        engine_disk_free_pct=None if engine_root is None else disk_free_pct(engine_root),
        containers=containers,
        dying_memcgs=None if dying is None else dying.count(),
    )


def parse_psi(text: str) -> float | None:
    """`some avg10` of a /proc/pressure file, percent."""
    found = _SOME_AVG10.search(text)
    share = float(found[1]) if found else None
    return share if share is not None and share <= 100.0 else None


def parse_load(text: str) -> float | None:
    """The load of the last minute in /proc/loadavg."""
    found = _LOAD_1.match(text)
    return float(found[1]) if found else None


def parse_available_memory(text: str) -> float | None:
    """MemAvailable of /proc/meminfo, percent of MemTotal."""
    kib = {name: int(amount) for name, amount in _MEMORY.findall(text)}
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    return None if not total or available is None else min(100.0, 100.0 * available / total)


def parse_dying(text: str) -> int | None:
    """`nr_dying_descendants` of a cgroup.stat."""
    found = _DYING.search(text)
    return int(found[1]) if found else None


def parse_memory_cgroups(text: str) -> int | None:
    """The number of cgroups of the memory hierarchy in /proc/cgroups, including its root and the dying."""
    found = _MEMORY_CGROUPS.search(text)
    return int(found[1]) if found else None


def disk_free_pct(path: Path) -> float | None:
    """Free share of the file system at `path` as in df(1), percent: of its blocks or its inodes, whichever is less."""
    try:
        system = os.statvfs(path)
    except OSError:
        return None
    blocks = _usable_pct(system.f_blocks, system.f_bfree, system.f_bavail)
    inodes = _usable_pct(system.f_files, system.f_ffree, system.f_favail)
    return min((share for share in (blocks, inodes) if share is not None), default=None)


def live_directories(root: Path, most: int = MOST_DIRECTORIES) -> int | None:
    """The number of directories from `root` down, including itself; None if more than `most`, or not readable.

    In kernfs a directory's link count is 2 plus the number of its subdirectories: a leaf is counted without opening it.
    """
    count, pending = 1, [str(root)]
    while pending:
        directory = pending.pop()
        try:
            found = _subdirectories(directory)
        except FileNotFoundError:
            if directory == str(root):
                return None
            continue  # just removed
        except OSError:
            return None
        count += len(found)
        if count > most:
            return None
        pending += [path for path, links in found if links != _LEAF_LINKS]
    return count


def _usable_pct(total: int, unused: int, usable: int) -> float | None:
    """Percent; what is reserved for root counts neither as used nor as usable. None without a total (btrfs inodes)."""
    reachable = total - unused + usable
    return 100.0 * usable / reachable if reachable > 0 else None


def _subdirectories(directory: str) -> list[tuple[str, int]]:
    """Path and link count of each subdirectory."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # just removed
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.path, entry.stat(follow_symlinks=False).st_nlink))
    return found


def _load_per_cpu(text: str, sys: Path) -> float | None:
    load = parse_load(text)
    try:
        return None if load is None else load / kernel.cpus_online(sys)
    except ValueError:  # a malformed list of CPUs
        return None


def _read(path: Path) -> str:
    """The text of a file; empty if it cannot be read, as with EOPNOTSUPP where PSI is off."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
