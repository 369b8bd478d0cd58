"""Gives up, once the probes are attached, the capabilities that only attaching takes.

Capabilities belong to threads (capabilities(7)): a thread that was started before would keep them. So they are given up
while no other thread lives, and threads started later are born without them.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from kickwatch.errors import KickwatchError
from kickwatch.node.roots import HOST

_VERSION_3 = 0x20080522  # linux/capability.h: two words of 32 capabilities each
_PR_CAPBSET_DROP = 24


class LinuxCapability(IntEnum):
    """Those that matter here, by the numbers of linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    SYS_ADMIN = 21
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


# Files of other users (a configuration, a container's cgroup); signals to a program whose user the engine remapped;
# addresses in kallsyms, which is read again when a module comes.
KEPT = frozenset(
    {LinuxCapability.DAC_OVERRIDE, LinuxCapability.DAC_READ_SEARCH, LinuxCapability.KILL, LinuxCapability.SYSLOG}
)

# What bpf(2) may take once the probes are armed, the lesser first.
FOR_BPF = (LinuxCapability.BPF, LinuxCapability.SYS_ADMIN)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held(proc: Path = HOST.proc) -> int:
    """The permitted capabilities of this thread, a bit each."""
    status = (proc / "thread-self" / "status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("CapPrm:")[2].split()[0], 16)


def give_up(works: Callable[[], bool]) -> frozenset[str]:
    """Keep KEPT of what is held, and of FOR_BPF the first without which `works` says False; returns the kept's names.

    `works` tries what the daemon goes on doing: reading and writing its maps. Where unprivileged BPF is off, that takes
    CAP_BPF before "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19), and CAP_SYS_ADMIN before
    "capabilities: Introduce CAP_BPF" (5.8). Where it works with none of them, capabilities are not the cause, and none
    is kept for it. Raises KickwatchError while other threads live, or where the kernel refuses.
    """
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise KickwatchError(f"other threads live ({names})", "give capabilities up before any is started")
    before = held()
    kept = _enough(before, works)
    _drop_from_bounding_set(before & ~kept)
    _set(effective=kept, permitted=kept)
    return frozenset(one.name for one in LinuxCapability if kept & 1 << one)


def _enough(before: int, works: Callable[[], bool]) -> int:
    """The fewest of `before` with which `works` says True. All of them are in effect again afterwards."""
    least = before & sum(1 << one for one in KEPT)
    try:
        for more in dict.fromkeys((0, *(before & 1 << one for one in FOR_BPF))):
            _set(effective=least | more, permitted=before)
            if works():
                return least | more
    finally:
        _set(effective=before, permitted=before)
    return least


def _drop_from_bounding_set(capabilities: int) -> None:
    """So that a helper, being root's, does not get them back; takes CAP_SETPCAP, which the unit does not leave."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(capabilities.bit_length()):
        if capabilities & 1 << number:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _set(*, effective: int, permitted: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (_Words * 2)(
        _Words(effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF, 0), _Words(effective >> 32, permitted >> 32, 0)
    )
    if libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), words) != 0:
        raise KickwatchError(f"capset: {os.strerror(ctypes.get_errno())}", "run as root")
