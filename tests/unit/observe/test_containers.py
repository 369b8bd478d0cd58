"""The probe of containers without a kernel: what it counts while somebody follows it, and while nobody does."""

import struct
from typing import Any

from kickwatch.observe.container_starts import CgroupEventKind
from kickwatch.observe.containers import CgroupCounts, ContainerObserver
from kickwatch.observe.layouts import CONTAINER_EVENT

ROOM = 4


class FakeCounts:
    """A per-CPU array of one CPU."""

    def __init__(self) -> None:
        self.counted = CgroupCounts()

    def entries(self, indices: range) -> list[bytes]:
        return [struct.pack("=Q", self.counted[index]) for index in indices]


class FakeEvents:
    """The map of events, with room for a few."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def items(self) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())

    def delete(self, key: bytes) -> None:
        del self.entries[key]


class FakeProbe:
    """The object: cgroups are made as a test wants it."""

    def __init__(self) -> None:
        self.maps: dict[str, Any] = {"counts": FakeCounts(), "events": FakeEvents()}

    def map(self, name: str) -> Any:
        return self.maps[name]

    def make(self, *numbers: int) -> None:
        """A container's cgroup with each number in its id."""
        counts, events = self.maps["counts"], self.maps["events"].entries
        for number in numbers:
            was = counts.counted
            path = f"/docker/{number:064x}".encode()
            event = (was.passed + 1, 0, CgroupEventKind.MKDIR, 1, 0, 0, b"runc", path)
            full = len(events) >= ROOM
            if not full:
                events[struct.pack("=IIQ", 0, 0, was.passed)] = CONTAINER_EVENT.packed.pack(*event)
            counts.counted = was._replace(made=was.made + 1, passed=was.passed + 1, lost=was.lost + full)


def observer() -> tuple[FakeProbe, ContainerObserver]:
    probe: Any = FakeProbe()
    return probe, ContainerObserver(probe)


def test_what_comes_while_somebody_follows_is_counted() -> None:
    probe, one = observer()
    probe.make(1)  # between the arming and the first look
    one.follow()
    probe.make(2, 3)
    one.drain()
    assert (one.ledger.started["docker"], one.complete()) == (3, True)


def test_what_comes_between_two_times_of_passive_mode_is_neither_counted_nor_missed() -> None:
    """A reload to trials and back: nobody takes the events, and the map fills up."""
    probe, one = observer()
    one.follow()
    probe.make(1)
    one.drain()
    one.leave()
    assert not one.complete()  # the daemon makes trials: it counts nothing of others
    probe.make(*range(10, 10 + 3 * ROOM))
    one.follow()
    assert (one.ledger.started["docker"], one.complete()) == (1, True)
    probe.make(2)
    one.drain()
    assert (one.ledger.started["docker"], one.complete()) == (2, True)


def test_what_is_lost_while_somebody_follows_is_missed_for_good() -> None:
    probe, one = observer()
    one.follow()
    probe.make(*range(2 * ROOM))
    one.drain()
    assert (one.ledger.started["docker"], one.complete()) == (ROOM, False)
    one.leave()
    one.follow()
    assert not one.complete()
