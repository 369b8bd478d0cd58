"""Drops the capabilities that only attaching the probes requires, once they are attached.

Capabilities belong to threads (capabilities(7)): a thread that was started before would keep them. So they are dropped
while there is no other thread; threads that start later do not have them.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Collection
from enum import IntEnum
from pathlib import Path

from kickwatch.errors import KickwatchError
from kickwatch.node.roots import HOST

_VERSION_3 = 0x20080522  # linux/capability.h: two words of 32 capabilities each
_PR_CAPBSET_DROP = 24
_PR_GET_SECCOMP, _SECCOMP_MODE_FILTER = 21, 2


class LinuxCapability(IntEnum):
    """The capabilities that matter here, by their numbers in linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    SETGID = 6
    SETPCAP = 8
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


# To read files of other users (a configuration, a container's cgroup); to signal a program whose user the engine
# remapped; to see addresses in kallsyms, which is read again when a module is loaded.
KEPT = frozenset(
    {LinuxCapability.DAC_OVERRIDE, LinuxCapability.DAC_READ_SEARCH, LinuxCapability.KILL, LinuxCapability.SYSLOG}
)

# The CapabilityBoundingSet= of systemd/kickwatch.service.
SERVICE = frozenset({LinuxCapability.BPF, LinuxCapability.PERFMON, LinuxCapability.SYSLOG, LinuxCapability.KILL})

# What creating a container takes: the CapabilityBoundingSet= of systemd/oci.conf, which says what each is for.
FOR_CONTAINERS = frozenset(
    {
        LinuxCapability.DAC_OVERRIDE,
        LinuxCapability.SETGID,
        LinuxCapability.SETPCAP,
        LinuxCapability.NET_ADMIN,
        LinuxCapability.SYS_ADMIN,
    }
)

# What bpf(2) may require once the probes are armed, the weaker first.
FOR_BPF = (LinuxCapability.BPF, LinuxCapability.SYS_ADMIN)


_given_up = [0]  # by this process


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held(proc: Path = HOST.proc) -> int:
    """The permitted capabilities of this thread, one bit for each."""
    return _in_status(proc, "CapPrm")


def effective() -> int:
    """The effective capabilities of this thread, one bit for each; reads no file."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (_Words * 2)()
    if libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), words) != 0:
        return 0
    return int(words[0].effective) | int(words[1].effective) << 32


def withheld(proc: Path = HOST.proc) -> int:
    """The effective capabilities of this thread that a security module does not let it use, one bit for each.

    AppArmor leaves them out of what capget(2) returns (apparmor_capget, security/apparmor/lsm.c), and /proc does not.
    Raises OSError.
    """
    return _in_status(proc, "CapEff") & ~effective()


def _in_status(proc: Path, name: str) -> int:
    """A set of capabilities of this thread, as its credentials have it."""
    status = (proc / "thread-self" / "status").read_text(encoding="ascii", errors="replace")
    return int(status.partition(f"{name}:")[2].split()[0], 16)


def given_up() -> int:
    """The capabilities that `give_up` has dropped, one bit for each; 0 before."""
    return _given_up[0]


def may_trace() -> bool:
    """True if this thread may look at every process: proc with hidepid hides none from it (proc(5))."""
    return bool(effective() >> LinuxCapability.SYS_PTRACE & 1)


def filtered() -> bool:
    """True if a seccomp filter decides which system calls this thread may make (prctl(2))."""
    return bool(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) == _SECCOMP_MODE_FILTER)


def give_up(works: Callable[[], bool]) -> frozenset[str]:
    """Drop all capabilities except KEPT and the weakest of FOR_BPF that `works` needs; returns the names of the kept.

    `works` tries what the daemon continues to do: read and write its maps. If unprivileged BPF is off, that requires
    CAP_BPF until "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19), and CAP_SYS_ADMIN until
    "capabilities: Introduce CAP_BPF" (5.8). If it fails with each of them, the cause is another one, and none is kept
    for it. Raises KickwatchError while there are other threads, or if the kernel refuses.
    """
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        raise KickwatchError(f"there are other threads ({names})", "drop capabilities before any is started")
    before = held()
    kept = _enough(before, works)
    _given_up[0] = before & ~kept
    _drop_from_bounding_set(before & ~kept)
    _set(effective=kept, permitted=kept)
    return frozenset(one.name for one in LinuxCapability if kept & 1 << one)


def restrict(kept: Collection[LinuxCapability]) -> None:
    """Leave this thread, and what it starts later, only the capabilities `kept` of those that it has.

    Other threads keep theirs. It cannot be undone, so the thread should end soon. Raises KickwatchError.
    """
    before = held()
    left = before & sum(1 << one for one in kept)
    _drop_from_bounding_set(before & ~left)
    _set(effective=left, permitted=left)


def _enough(before: int, works: Callable[[], bool]) -> int:
    """The fewest capabilities with which `works` returns True. All of `before` are in effect again afterwards."""
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
    """Otherwise a child that runs as root would regain them. It needs CAP_SETPCAP, which the unit does not grant."""
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
