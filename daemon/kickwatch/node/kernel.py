"""Facts of the running kernel that name a stratum: release, boot, CPUs, expedited RCU."""

import os
from pathlib import Path

from kickwatch.node.roots import HOST


def release() -> str:
    """`uname -r`."""
    return os.uname().release


def architecture() -> str:
    """`uname -m`."""
    return os.uname().machine


def boot_id(proc: Path = HOST.proc) -> str:
    """Random id of this boot; empty where the kernel does not say."""
    return _read(proc / "sys/kernel/random/boot_id")


def command_line(proc: Path = HOST.proc) -> str:
    """What the boot loader passed."""
    return _read(proc / "cmdline")


def rcu_expedited(sys: Path = HOST.sys) -> bool:
    """True when every grace period is expedited: each one then interrupts the busy CPUs. Raises OSError.

    A kernel without expedited grace periods has no such file.
    """
    try:
        return (sys / "kernel/rcu_expedited").read_text(encoding="ascii", errors="replace").strip() not in ("", "0")
    except FileNotFoundError:
        return False


def cpus_online(sys: Path = HOST.sys) -> int:
    """Number of online CPUs (the CPUs that can be interrupted, whatever our own affinity is)."""
    return len(online(sys)) or os.cpu_count() or 1


def online(sys: Path = HOST.sys) -> list[int]:
    """The CPUs that are online."""
    return parse_cpu_list(_read(sys / "devices/system/cpu/online"))


def cpu_births(sys: Path = HOST.sys) -> dict[int, int]:
    """For each online CPU a number that is another one once it has been offline in between.

    It is the inode of the CPU's directory `topology`, which is removed when a CPU goes and made again when it comes
    (topology_add_dev, drivers/base/topology.c: CPUHP_TOPOLOGY_PREPARE); sysfs gives a number to one directory after the
    other and not to two ("kernfs: use idr instead of ida to manage inode number", 4.14). 0 where there is none.
    """
    return {cpu: _inode(sys / f"devices/system/cpu/cpu{cpu}/topology") for cpu in online(sys)}


def possible(sys: Path = HOST.sys) -> list[int]:
    """The CPUs that may ever come: the last one tells how long the kernel's CPU masks are."""
    return parse_cpu_list(_read(sys / "devices/system/cpu/possible"))


def parse_cpu_list(text: str) -> list[int]:
    """The kernel's list format: `0-3,8` is [0, 1, 2, 3, 8] (Documentation/admin-guide/cputopology.rst)."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
