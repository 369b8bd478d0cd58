"""Containers that any program starts, as the kernel's cgroup tracepoints show them: the probe containers.bpf.c.

It also finds the tasks that make containers or run in one. What they send is counted by a second instance of the
request probe, which passes over all other tasks (`members`).
"""

import struct
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic_ns
from typing import ClassVar, NamedTuple, Self

from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.container_starts import CgroupEvent, StartLedger
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.layouts import CONTAINER_EVENT
from kickwatch.observe.readings import sums_of
from kickwatch.observe.requests import RequestObserver

OBJECT = "containers"
# Program by tracepoint. The ends of tasks first: a member that ends is forgotten.
PROGRAMS = {
    "containers_exit": "sched_process_exit",
    "containers_fork": "sched_process_fork",
    "containers_exec": "sched_process_exec",
    "containers_attach": "cgroup_attach_task",
    "containers_rmdir": "cgroup_rmdir",
    "containers_mkdir": "cgroup_mkdir",
}
_MAKES_CONTAINERS, _MAKES_CGROUPS = 1, 2  # MAKER_OF_CGROUPS of containers.bpf.c
_COMM_BYTES = 15  # of task_struct.comm, which the kernel cuts
# Programs that make one container for each run of theirs. Engines that serve many are not among them, nor is systemd.
RUNTIMES = ("runc", "crun", "youki", "runsc", "kata-runtime", "nvidia-container-runtime")
OTHER_MAKERS = ("containerd-shim", "containerd-shim-runc-v2", "conmon", "conmonrs", "podman", "buildah")
SYSTEM_MAKERS = ("lxc-start", "systemd-nspawn")
_MEMBER_CELLS, _MEMBER_STACKS = 2048, 4096


class ContainersRung(StrEnum):
    """Ways to count the containers of others."""

    TRACEPOINT = "tracepoint"
    NONE = "none"


class CgroupCounts(NamedTuple):
    """Cumulative, in the order of `enum containers_count`.

    `strangers`: tasks that found the map of members full, so that their requests count beside. `inside`: of the cgroups
    made those that a container made inside itself, as its own systemd does for each service.
    """

    made: int = 0
    passed: int = 0
    lost: int = 0
    strangers: int = 0
    inside: int = 0


@dataclass
class ContainerObserver:
    """The armed probe. Construct with `arm`; `close` disarms it.

    It stays armed while a daemon makes trials between two times of passive mode. `followed`: its events are taken;
    `lost_unfollowed`: events that found the map full while they were not.
    """

    probe: BpfObject
    ledger: StartLedger = field(default_factory=StartLedger)
    _waiting: list[CgroupEvent] = field(default_factory=list)
    _read: int = 0
    followed: bool = True
    latest: CgroupCounts = field(default_factory=CgroupCounts)  # as of the last `drain`
    lost_unfollowed: int = 0

    @classmethod
    def arm(cls, own: Collection[str] = (), max_entries: Mapping[str, int] | None = None) -> Self:
        """Load and attach. `own`: names of cgroups whose containers do not count. Raises ObserveError.

        `max_entries`: of maps, where it is not that of the source.
        """
        probe = BpfObject(OBJECT, max_entries=max_entries)
        try:
            _name_makers(probe)
            for program, tracepoint in PROGRAMS.items():
                probe.attach_raw_tracepoint(program, tracepoint)
        except BaseException:
            probe.close()
            raise
        return cls(probe, StartLedger(own))

    def counts(self) -> CgroupCounts:
        """Raises ObserveError."""
        return CgroupCounts(*sums_of(self.probe.map("counts"), range(len(CgroupCounts._fields))))

    def follow(self) -> None:
        """Count on. What came after `leave` counts for nothing. Raises ObserveError."""
        if not self.followed:
            started, lost = Counter(self.ledger.started), self.latest.lost
            self.lost_unfollowed += self.drain().lost - lost
            self.ledger.started, self.followed = started, True

    def leave(self) -> None:
        """Nobody takes events until the next `follow`."""
        self.followed = False

    def complete(self) -> bool:
        """Whether every container is counted, and none was missed while somebody counted. Raises ObserveError."""
        return self.followed and self.counts().lost == self.lost_unfollowed

    def drain(self) -> CgroupCounts:
        """Take the events that came since the last call; the ledger has what they mean. Raises ObserveError.

        An event that arrives while the map is read may be read before an earlier one: it waits for the next call.
        """
        counts, until_ns = self.counts(), monotonic_ns()
        if counts.passed - counts.lost > self._read:
            self._waiting += self._take_events()
            self._waiting.sort()
        ready = [event for event in self._waiting if event.at_ns <= until_ns]
        self._waiting = self._waiting[len(ready) :]
        self.ledger.take(ready, until_ns)
        if counts.lost != self.latest.lost:
            self.ledger.lost(until_ns)
        self.latest = counts
        return counts

    def _take_events(self) -> list[CgroupEvent]:
        events = self.probe.map("events")
        found = list(events.items())
        for key, _ in found:
            events.delete(key)
        self._read += len(found)
        return [event_of(value) for _, value in found]

    def try_maps(self) -> None:
        """Do everything that is done with the maps while the probe is armed. Raises ObserveError if it is refused."""
        self.drain()
        events = self.probe.map("events")
        events.delete(bytes(events.key_bytes))

    def cost(self) -> dict[str, tuple[int, int]]:
        """(ns, runs) of each program; both rise only while BPF statistics are on."""
        return {program: self.probe.run_statistics(program)[:2] for program in PROGRAMS}

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()


def _name_makers(probe: BpfObject) -> None:
    kinds = dict.fromkeys((*OTHER_MAKERS, *SYSTEM_MAKERS), _MAKES_CONTAINERS)
    kinds |= dict.fromkeys(RUNTIMES, _MAKES_CONTAINERS | _MAKES_CGROUPS)
    makers = probe.map("makers")
    for name, kind in kinds.items():
        makers.put(name.encode()[:_COMM_BYTES].ljust(makers.key_bytes, b"\0"), struct.pack("=I", kind))


def event_of(value: bytes) -> CgroupEvent:
    """An entry of the map `events`. Where a member could not be noted, its process identifies the run."""
    at_ns, run, kind, pid, maker, _, comm, path = CONTAINER_EVENT.packed.unpack(value)
    run = (run or pid) if maker & _MAKES_CGROUPS else 0
    return CgroupEvent(at_ns, kind, _string(path), run, _string(comm))


def _string(text: bytes) -> str:
    return text.partition(b"\0")[0].decode(errors="replace")


@dataclass
class CsdMembers(CsdObserver):
    """The requests of members, on the first rung."""

    OBJECT: ClassVar[str] = "csd_members"
    RECYCLE_ABOVE: ClassVar[int] = _MEMBER_CELLS * 3 // 4


@dataclass
class KprobeMembers(KprobeObserver):
    """The requests of members, on the second rung."""

    OBJECT: ClassVar[str] = "calls_members"
    RECYCLE_ABOVE: ClassVar[int] = _MEMBER_CELLS * 3 // 4


def arm_members(containers: ContainerObserver, counting: RequestObserver) -> RequestObserver:
    """A request probe beside `counting`, on its rung, for what members send. Raises ObserveError."""
    kind = CsdMembers if isinstance(counting, CsdObserver) else KprobeMembers
    return kind.arm(
        counting.symbols,
        counting.cpus_online,
        counting.slab_mutex,
        counting.isolated,
        possible=counting.possible,
        shared={"members": containers.probe.map("members")},
        sizes={"cells": _MEMBER_CELLS, "stacks": _MEMBER_STACKS},
    )
