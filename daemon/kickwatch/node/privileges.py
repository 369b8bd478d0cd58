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

_VERSION_3 = 0x20080522  # linux/capability.h: two words of 32 capabilities each
_PR_CAPBSET_DROP = 24


class Capability(IntEnum):
    """Those that matter here, by the numbers of linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


# Files of other users (a configuration, a container's cgroup); signals to a program whose user the engine remapped;
# addresses in kallsyms, which is read again when a module comes.
KEPT = frozenset({Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.KILL, Capability.SYSLOG})


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held(proc: Path = Path("/proc")) -> int:
    """The permitted capabilities of this thread, a bit each."""
    status = (proc / "thread-self" / "status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("CapPrm:")[2].split()[0], 16)


def give_up(works: Callable[[], bool]) -> frozenset[str]:
    """Keep KEPT of what is held, and CAP_BPF where `works` says False without it; returns the names of what is kept.

    `works` tries what the daemon goes on doing: reading its maps. Before "bpf: refine kernel.unprivileged_bpf_disabled
    behaviour" (5.19) that takes CAP_BPF where unprivileged BPF is off. Raises KickwatchError while other threads live,
    or where the kernel refuses.
    """
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise KickwatchError(f"other threads live ({names})", "give capabilities up before any is started")
    before = held()
    kept = before & sum(1 << one for one in KEPT)
    _set(effective=kept, permitted=before)
    if not works():
        kept |= before & 1 << Capability.BPF
    _set(effective=before, permitted=before)
    _drop_from_bounding_set(before & ~kept)
    _set(effective=kept, permitted=kept)
    return frozenset(one.name for one in Capability if kept & 1 << one)


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
