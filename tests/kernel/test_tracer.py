"""The probe that lists events, beside the one that counts: equal numbers, and losses that are counted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from kickwatch.model import WindowKind
from kickwatch.observe.control import positive_control
from kickwatch.observe.observatory import Observatory
from kickwatch.observe.trace_events import BEGINS, MULTI, Kind, TraceEvent, event_of
from kickwatch.observe.tracer import RING_BYTES, Tracer
from needs import ipi_rung

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]
PAGE = 4096


@pytest.fixture(autouse=True)
def csd_rung() -> None:
    if ipi_rung() != "csd":
        pytest.skip("feature: single requests are listed at csd:csd_queue_cpu alone, which this kernel lacks")


@pytest.fixture(params=[RING_BYTES, PAGE], ids=["room", "too small"])
async def tracer(request: pytest.FixtureRequest, observatory: Observatory) -> AsyncIterator[Tracer]:
    armed = await asyncio.to_thread(Tracer.arm, observatory, request.param)
    yield armed
    armed.close()


async def listed_and_counted(tracer: Tracer) -> tuple[list[TraceEvent], int]:
    """(events, calls of membarrier that the counting probe saw) while the positive control makes its calls."""
    observatory = tracer.observatory
    tracer.switch(on=True)
    before = await observatory.sample()
    control = await positive_control(observatory)
    after = await observatory.sample()
    tracer.switch(on=False)
    tracer.drain()
    assert control.passed, control.detail  # the counting is unchanged
    cells = observatory.window(WindowKind.CONTROL, before, after).cells
    return [event_of(record) for record in tracer.records], sum(c.calls for c in cells if c.func == "ipi_mb")


async def test_every_call_is_listed_or_lost(tracer: Tracer, request: pytest.FixtureRequest) -> None:
    events, counted = await listed_and_counted(tracer)
    requests = [event for event in events if event.kind == Kind.REQUEST]
    ours = [event for event in requests if tracer.observatory.symbols.resolve(event.func) == "ipi_mb"]
    listed = sum(event.flags & (MULTI | BEGINS) == MULTI | BEGINS for event in ours)
    losses = tracer.losses()
    assert counted >= 23
    if "room" in request.node.name:
        assert (listed, losses.calls, dict(losses.by_kind)) == (counted, 0, {})
        assert all("membarrier_private_expedited" in tracer.stack(event.stack) for event in ours)
        at_targets = Counter(event.kind for event in events if event.func in {each.func for each in ours})
        assert at_targets[Kind.ENTRY] >= len(ours)  # and the function runs there
        assert at_targets[Kind.EXIT] == at_targets[Kind.ENTRY]
    else:
        assert losses.by_kind[Kind.REQUEST] > 0
        assert listed < counted <= listed + losses.calls
        assert losses.events >= losses.by_kind[Kind.REQUEST]


async def test_nothing_is_listed_until_it_is_switched_on(tracer: Tracer) -> None:
    assert (await positive_control(tracer.observatory)).passed
    assert (tracer.drain(), tracer.records, tracer.losses().events) == (0, [], 0)
