"""Detects what disturbs a trial from outside: suspend, CPU hotplug, a restart or update of the engine."""

import socket
import stat
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kickwatch.model import Disturbance
from kickwatch.node import kernel
from kickwatch.node.processes import start_ticks
from kickwatch.node.roots import HOST, HostRoots

_SUSPENDED_NS = 500_000_000
_CONNECT_S = 2.0


@dataclass(frozen=True)
class Moment:
    """The state that must not change while a trial runs."""

    asleep_ns: int
    engine: tuple[int, int]
    cpus: Mapping[int, int] = field(default_factory=dict)  # see kernel.cpu_births

    def disturbances(self, later: "Moment") -> tuple[Disturbance, ...]:
        """The disturbances between this moment and a later one."""
        found = list[Disturbance]()
        if later.asleep_ns - self.asleep_ns > _SUSPENDED_NS:
            found.append(Disturbance.SUSPENDED)
        if later.cpus != self.cpus:
            found.append(Disturbance.CPUS_CHANGED)
        if later.engine != self.engine:
            found.append(Disturbance.ENGINE_RESTARTED)
        return tuple(found)


def moment(engine: Path, host: HostRoots = HOST) -> Moment:
    """The present state. `engine` is the engine's socket, or the program that is run for each container.

    CLOCK_BOOTTIME counts the time asleep, CLOCK_MONOTONIC does not (clock_gettime(2)). Two readings of /proc/interrupts
    may have the same CPUs although one of them was offline in between; their births show that.
    """
    asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return Moment(asleep_ns, engine_program(engine) or engine_process(engine, host.proc), kernel.cpu_births(host.sys))


def engine_program(engine: Path) -> tuple[int, int] | None:
    """(inode, modification time in ns) of an engine that is a program: an update replaces it. None for a socket."""
    try:
        status = engine.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def engine_process(engine_socket: Path, proc: Path = HOST.proc) -> tuple[int, int]:
    """(pid, start time in clock ticks) of the process that listens on a unix socket; zeros if none answers.

    SO_PEERCRED (unix(7)) gives a client the process that called listen(2). With socket activation that is systemd, and
    a restart of the engine then shows only in its containers' failures.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_CONNECT_S)
            client.connect(str(engine_socket))
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return (0, 0)
    pid = struct.unpack("3i", credentials)[0]
    return (pid, start_ticks(pid, proc) or 0)
