"""What the containers' memcgs say of kernel memory accounting, and what a canary batch says of its probe."""

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from builders import containers, window
from kickwatch.experiment.trial_run import TrialRun, kmem_accounting
from kickwatch.model import Container, KmemAccounting
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.observatory import Observatory, Sample
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestSample


def charged(*kmem_bytes: int | None) -> tuple[Container, ...]:
    """Containers whose memcgs told these figures."""
    lives = containers(len(kmem_bytes))
    return tuple(replace(life, kmem_bytes=told) for life, told in zip(lives, kmem_bytes, strict=True))


def test_a_counter_must_be_above_zero_in_every_container() -> None:
    assert kmem_accounting(charged(1, 2), disabled=False, deferred=False) is KmemAccounting.ON
    assert kmem_accounting(charged(1, 0), disabled=False, deferred=False) is KmemAccounting.OFF


def test_a_deferred_statistic_tells_by_one_container_that_was_charged() -> None:
    assert kmem_accounting(charged(0, 4096, 0), disabled=False, deferred=True) is KmemAccounting.ON
    assert kmem_accounting(charged(0, 0, 0), disabled=False, deferred=True) is KmemAccounting.UNKNOWN
    assert kmem_accounting(charged(0, 0, 0), disabled=False, deferred=True, paid=True) is KmemAccounting.ON
    assert kmem_accounting(charged(0, 0, 0), disabled=True, deferred=True, paid=True) is KmemAccounting.OFF


def test_what_no_container_tells_is_unknown_and_the_command_line_outranks_all() -> None:
    for deferred in (False, True):
        assert kmem_accounting(charged(None), disabled=False, deferred=deferred) is KmemAccounting.UNKNOWN
        assert kmem_accounting(charged(4096), disabled=True, deferred=deferred) is KmemAccounting.OFF


class Batches:
    """Stands in for the canary."""

    async def create_batch(self, _memcgs: int) -> int:
        return 1

    async def remove_batch(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("health", "misses", "told"),
    [
        (Health(), 0, (0, 0)),
        (Health(lost=2, unknown_kind=3, stackless=5), 0, (5, 5)),
        (Health(), 9, (0, 0)),  # single requests, by interrupts
    ],
)
async def test_a_batch_tells_what_its_probe_lost(health: Health, misses: int, told: tuple[int, int]) -> None:
    samples = [
        Sample(at, InterruptSample((0, 1), {}), RequestSample({}, seen, missed), None)
        for at, seen, missed in ((0, Health(), 0), (1, health, misses))
    ]

    async def sample() -> Sample:
        return samples.pop(0)

    observatory: Any = SimpleNamespace(
        sample=sample,
        window=lambda kind, *_: window(kind),
        requests_lost=Observatory.requests_lost,
    )
    config = SimpleNamespace(trial=SimpleNamespace(canary_memcgs=100))
    rig: Any = SimpleNamespace(observatory=observatory, canary=Batches(), config=config)
    batch = await TrialRun(rig, 1, lambda _: None)._canary()
    assert batch is not None
    assert (batch.memcgs, batch.lost_events, batch.stackless_events) == (100, *told)
