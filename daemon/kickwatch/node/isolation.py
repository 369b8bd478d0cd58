"""Which CPUs are isolated: their owner has set them apart, so that nothing interrupts what runs there.

Three sources, and a list in the configuration for what none of them shows (a pinned workload without isolation):
`isolcpus=` and `nohz_full=` of the kernel's command line, as sysfs shows them; and cpuset partitions of type
`isolated` (cgroup v2, "cgroup/cpuset: Add a new isolated cpus.partition type", 6.1; Documentation/admin-guide/
cgroup-v2.rst). Partitions come and go while the node runs.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.kernel import parse_cpu_list, possible
from kickwatch.node.roots import HOST, HostRoots

_PARTITION, _EXCLUSIVE = "cpuset.cpus.partition", "cpuset.cpus.exclusive"
_ISOLATED = "isolated"
_PARTITIONS = frozenset({"root", _ISOLATED})  # valid ones; an invalid one reads `isolated invalid (reason)`


def isolated_cpus(host: HostRoots = HOST, listed: Iterable[int] = ()) -> tuple[int, ...]:
    """All isolated CPUs, ascending. `listed`: the configuration's; CPUs that this machine cannot have are left out.

    A source that cannot be read has no CPUs.
    """
    found = set(listed)
    for name in ("isolated", "nohz_full"):
        found.update(_cpus(host.sys / "devices/system/cpu" / name))
    found.update(_partitioned(host))
    return tuple(sorted(found.intersection(possible(host.sys) or found)))


def _partitioned(host: HostRoots) -> set[int]:
    """CPUs of isolated partitions: from one file ("cgroup/cpuset: Expose cpuset.cpus.isolated"), or by a walk."""
    root = _unified_root(host)
    if root is None:
        return set()
    whole = root / "cpuset.cpus.isolated"
    if whole.exists():
        return set(_cpus(whole))
    return {cpu for group in _isolated_groups(root) for cpu in _cpus(group / "cpuset.cpus.effective")}


def _unified_root(host: HostRoots) -> Path | None:
    """Where cgroup v2 is mounted with the cpuset controller."""
    try:
        mounts = Cgroups.read(host).mounts
    except CgroupError:
        return None
    return next((mount for mount in mounts if "cpuset" in _text(mount / "cgroup.controllers").split()), None)


def _isolated_groups(group: Path) -> Iterator[Path]:
    """Isolated partitions below `group`.

    Few groups are searched: the parent of a partition is a partition too, or since "cgroup/cpuset: Introduce remote
    partition" (6.7) has exclusive CPUs to give.
    """
    for child in _children(group):
        kind = _text(child / _PARTITION)
        if kind == _ISOLATED:
            yield child
        if kind in _PARTITIONS or _text(child / _EXCLUSIVE):
            yield from _isolated_groups(child)


def _children(group: Path) -> list[Path]:
    try:
        return sorted(child for child in group.iterdir() if child.is_dir())
    except OSError:  # it was removed in the meantime
        return []


def _cpus(path: Path) -> list[int]:
    try:
        return parse_cpu_list(_text(path))
    except ValueError:  # nohz_full reads `(null)` where no CPU is
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
