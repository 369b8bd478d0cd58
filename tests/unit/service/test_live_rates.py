"""Rates from cumulative readings, without a kernel: what restarts is no jump, and an error is not known."""

import struct
from typing import Any

from kickwatch.errors import ObserveError
from kickwatch.observe.contention import ContentionObserver, ContentionSample, WaitTotals
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.interrupts import InterruptSample, IpiKind
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample
from kickwatch.outlets.live_status import Rates
from kickwatch.service.live_rates import LiveRates

SYMBOLS = Symbols.parse("1000 t smp_call_function_many_cond\n2000 t do_sync_core\n3000 t flush_tlb_func\n5000 t end\n")
MUTEX = 0x8000
SYNC, TLB = (struct.pack("=QiI8x", func, -17, 0) for func in (0x2000, 0x3000))
WAIT = struct.pack("=Q8xiI16s", MUTEX, -17, 0, b"cat")


class NoProbe:
    """A probe whose maps are not read."""

    def map(self, _name: str) -> "NoProbe":
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Accepted, and not kept."""


class Node:
    """Observers whose samples are those of the test, and a clock that a sample moves on by `takes_s`."""

    def __init__(self) -> None:
        probe: Any = NoProbe()
        self.observatory: Any = Observatory(host=None, cpus_online=2, symbols=SYMBOLS)  # type: ignore[arg-type]
        self.observatory.requests = CsdObserver(probe, SYMBOLS, 2)
        self.observatory.requests.creation_broadcasts = lambda sample: sample.totals[SYNC].broadcasts
        self.observatory.contention = ContentionObserver(probe, SYMBOLS, MUTEX, 0)
        self.observatory.sample = self.sample
        self.samples: list[Sample | ObserveError] = []
        self.now_s = 100.0
        self.takes_s = 0.001
        self.looks = 0
        self.rates = LiveRates(self.observatory, lambda: self.now_s, lambda: self.now_s)

    async def sample(self) -> Sample:
        self.looks += 1
        self.now_s += self.takes_s
        found = self.samples.pop(0)
        if isinstance(found, ObserveError):
            raise found
        return found

    async def look(self, *samples: Sample | ObserveError, after_s: float = 5.0) -> Rates | None:
        """The rates at the last of these looks."""
        found = None
        for one in samples:
            self.now_s += after_s
            self.samples = [one]
            found = await self.rates.read()
        return found


def sample(at_s: float, sync: int, tlb: int, cal: int = 0, *, waits: int = 0, broadcasts: int = 0) -> Sample:
    interrupts = InterruptSample((0, 3), {IpiKind.CAL: (cal, 20)})
    requests = RequestSample({SYNC: Totals(sync, sync, broadcasts), TLB: Totals(tlb, tlb, 0)})
    contention = ContentionSample({WAIT: WaitTotals(waits, waits * 6_000_000, 9)}, (0, waits))
    return Sample(int(at_s * 1e9), interrupts, requests, contention)


async def test_the_first_look_only_notes_where_the_counters_stand() -> None:
    assert await Node().look(sample(1.0, 1000, 1000)) is None


async def test_rates_are_the_rise_over_the_time_between_two_looks() -> None:
    found = await Node().look(sample(10.0, 1000, 50, 7), sample(15.0, 1010, 1050, 27, waits=5, broadcasts=3))
    assert found == Rates(
        span_s=5.0,
        requests={"do_sync_core": 2.0, "flush_tlb_func": 200.0},
        interrupts={"CAL": 4.0},
        creation_broadcasts=3,
        waits=1.0,
        wait_ms=6.0,
    )


async def test_a_map_that_was_emptied_is_no_jump_and_hides_how_many_broadcasts() -> None:
    node = Node()
    found = await node.look(sample(10.0, 1000, 50, broadcasts=9), sample(15.0, 10, 60, broadcasts=2))
    assert found is not None
    assert (found.requests, found.creation_broadcasts) == ({"do_sync_core": 2.0, "flush_tlb_func": 2.0}, None)


async def test_a_refused_reading_is_not_known_and_the_next_one_spans_it() -> None:
    node = Node()
    assert await node.look(sample(10.0, 0, 0), ObserveError("refused", "")) is None
    found = await node.look(sample(20.0, 100, 0))
    assert found is not None
    assert (found.span_s, found.requests) == (10.0, {"do_sync_core": 10.0})


async def test_without_probes_the_counters_are_left() -> None:
    node = Node()
    node.observatory.requests = node.observatory.contention = None
    bare = [
        Sample(int(at_s * 1e9), InterruptSample((0,), {IpiKind.CAL: (cal,)}), None, None)
        for at_s, cal in ((1, 5), (3, 9))
    ]
    assert await node.look(*bare) == Rates(span_s=2.0, interrupts={"CAL": 2.0})


async def test_looks_that_take_long_are_seldom() -> None:
    node = Node()
    node.takes_s = 0.05  # as on a machine with many CPUs
    first = await node.look(sample(10.0, 0, 0), sample(60.1, 50, 0), after_s=51.0)
    for _ in range(9):
        assert await node.look(sample(65.0, 99, 0)) == first
    assert node.looks == 2
    await node.look(sample(111.0, 99, 0), after_s=10.0)
    assert node.looks == 3
