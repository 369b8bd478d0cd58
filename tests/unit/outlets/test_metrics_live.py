"""From the readings of the observers to figures by label and source, without a kernel."""

import struct
from typing import Any

from kickwatch.observe.contention import ContentionObserver, ContentionSample, WaitTotals
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.interrupts import InterruptSample, IpiKind
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestSample, Totals
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample
from kickwatch.outlets.metrics.live import Live, live_of
from kickwatch.outlets.metrics.registry import Metrics

SYMBOLS = Symbols.parse(
    "1000 t smp_call_function_many_cond\n2000 t do_sync_core\n3000 t flush_tlb_func\n"
    "4000 t somebodys_own_func\n5000 t end\n"
)
INTERRUPTS = InterruptSample((0, 3), {IpiKind.CAL: (10, 20), IpiKind.RES: (5, 6)})


class NoProbe:
    """A probe whose maps accept writes and are not read."""

    def map(self, _name: str) -> "NoProbe":
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Accepted, and not kept."""


def observatory(*, slab_mutex: int = 0x8000) -> Observatory:
    made = Observatory(host=None, cpus_online=2, symbols=SYMBOLS)  # type: ignore[arg-type]
    probe: Any = NoProbe()
    made.requests = CsdObserver(probe, SYMBOLS, 2)
    made.contention = ContentionObserver(probe, SYMBOLS, slab_mutex, 0)
    return made


def cell(func: int, stack: int = -17) -> bytes:
    return struct.pack("=QiI8x", func, stack, 0)


def wait(lock: int, stack: int = -17) -> bytes:
    return struct.pack("=Q8xiI16s", lock, stack, 0, b"cat")


def sample(csd: RequestSample | None = None, contention: ContentionSample | None = None) -> Sample:
    return Sample(0, INTERRUPTS, csd, contention)


def test_requests_are_by_reason_and_those_without_a_name_are_other() -> None:
    totals = {
        cell(0x2000): Totals(6, 2, 2),
        cell(0x2000, 9): Totals(3, 1, 1),
        cell(0x3000): Totals(100, 50, 0),
        cell(0x4000): Totals(5, 0, 0),
        cell(0xFFFF_8888_0000_0000): Totals(7, 0, 0),
    }
    live = live_of(observatory(), sample(RequestSample(totals)))
    sums = {reason: sum(sources.values()) for reason, sources in live.requests.items()}
    assert sums == {"do_sync_core": 9, "flush_tlb_func": 100, "other": 12}
    assert live.requests["do_sync_core"] == {cell(0x2000): 6, cell(0x2000, 9): 3}


def test_interrupts_keep_their_cpus() -> None:
    live = live_of(observatory(), sample())
    assert live.interrupts == {"CAL": {0: 10, 3: 20}, "RES": {0: 5, 3: 6}}


def test_only_waits_for_slab_mutex_have_a_time() -> None:
    totals = {wait(0x8000): WaitTotals(2, 300, 200), wait(0x9000): WaitTotals(9, 9000, 1000)}
    live = live_of(observatory(), sample(contention=ContentionSample(totals, (0, 2, 1))))
    assert live.wait_ns == {wait(0x8000): 300}
    assert live.waits == {0: {0: 0}, 1: {0: 2}, 2: {0: 1}}


def test_without_the_address_of_the_mutex_no_wait_counts() -> None:
    made = observatory(slab_mutex=0)
    live = live_of(made, sample(contention=ContentionSample({wait(0): WaitTotals(2, 300, 200)})))
    assert (live.wait_ns, live.waits_known) == ({}, False)


def test_waits_are_unknown_if_only_the_ipi_probe_knows_the_mutex() -> None:
    made = observatory()
    assert live_of(made, sample(contention=ContentionSample({}))).waits_known
    assert made.requests is not None
    made.requests.slab_mutex, made.contention = 0x8000, None
    assert made.slab_mutex_known
    assert not live_of(made, sample()).waits_known


def test_lost_events_are_those_that_a_window_counts_as_lost() -> None:
    csd = RequestSample({}, Health(lost=1, stackless=50, unknown_kind=3, unmatched=5), recursion_misses=7)
    contention = ContentionSample({}, (), Health(lost=2, unmatched=4), recursion_misses=1000)
    assert live_of(observatory(), sample(csd, contention)).lost == {"csd": {0: 16}, "contention": {0: 6}}


def test_an_observer_that_is_not_armed_is_down_and_has_no_figures() -> None:
    made = observatory()
    made.requests = made.contention = None
    live = live_of(made, sample())
    assert live.up == {"csd": False, "contention": False, "interrupts": True}
    assert (live.requests, live.waits, live.wait_ns, live.lost) == ({}, {}, {}, {})
    assert Live().up == {}


def test_passive_mode_alone_shows_whether_containers_of_others_are_observed() -> None:
    trials = observatory()
    assert "containers" not in live_of(trials, sample()).up
    refused = observatory()
    refused.passive = True  # and no probe was armed
    assert live_of(refused, sample()).up["containers"] is False
    metrics = Metrics("1.2.3")
    assert b'observer="containers"' not in metrics.text()
    metrics.observe(live_of(refused, sample()))
    assert b'kickwatch_observer_up{observer="containers"} 0.0' in metrics.text()
