"""Facts about the running kernel: release, boot, CPUs, expedited RCU."""

import os
import re
from pathlib import Path

from kickwatch.node.roots import HOST


def release() -> str:
    """`uname -r`."""
    return os.uname().release


def version_code(proc: Path = HOST.proc) -> int:
    """LINUX_VERSION_CODE, which the release need not show: Debian's 4.19.0-27 is a 4.19.316, Ubuntu's 4.15.0 a 4.15.18.

    Debian has it in the version (`uname -v`), Ubuntu in a file.
    """
    uname = os.uname()
    debian = re.search(r"Debian (\d+\.\d+\.\d+)", uname.version)
    ubuntu = _read(proc / "version_signature").rpartition(" ")[2]
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", debian[1] if debian else ubuntu or uname.release)
    major, minor, patch = (int(part or 0) for part in numbers.groups()) if numbers else (0, 0, 0)
    return major << 16 | minor << 8 | min(patch, 255)


def architecture() -> str:
    """`uname -m`."""
    return os.uname().machine


def boot_id(proc: Path = HOST.proc) -> str:
    """Random id of this boot; empty if the kernel does not tell."""
    return _read(proc / "sys/kernel/random/boot_id")


def command_line(proc: Path = HOST.proc) -> str:
    """The kernel command line."""
    return _read(proc / "cmdline")


def rcu_expedited(sys: Path = HOST.sys) -> bool:
    """True if every grace period is expedited, and so interrupts the busy CPUs. Raises OSError.

    False without the file: such a kernel has no expedited grace periods.
    """
    try:
        return (sys / "kernel/rcu_expedited").read_text(encoding="ascii", errors="replace").strip() not in ("", "0")
    except FileNotFoundError:
        return False


def cpus_online(sys: Path = HOST.sys) -> int:
    """Number of online CPUs: those that can be interrupted, independent of our own affinity."""
    return len(online(sys)) or os.cpu_count() or 1


def online(sys: Path = HOST.sys) -> list[int]:
    """The CPUs that are online."""
    return parse_cpu_list(_read(sys / "devices/system/cpu/online"))


def cpu_births(sys: Path = HOST.sys) -> dict[int, int]:
    """For each online CPU a number that changes when the CPU goes offline and comes back.

    It is the inode of the CPU's directory `topology`, which is removed when the CPU goes offline and created when it
    comes back (topology_add_dev, drivers/base/topology.c: CPUHP_TOPOLOGY_PREPARE). sysfs numbers directories in turn
    and does not reuse a number ("kernfs: use idr instead of ida to manage inode number", 4.14). 0 without the
    directory.
    """
    return {cpu: _inode(sys / f"devices/system/cpu/cpu{cpu}/topology") for cpu in online(sys)}


def possible(sys: Path = HOST.sys) -> list[int]:
    """The CPUs that may ever be online: the last one determines the length of the kernel's CPU masks."""
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
