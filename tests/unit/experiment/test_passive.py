"""The bill of other people's containers: what nobody saw is not known, and no zero."""

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from builders import TLB, kick, wait, window
from kickwatch.configuration.types import Config, ServiceConfig
from kickwatch.experiment.passive import Passive
from kickwatch.model import Window

WAITS = ("slab_mutex_waits", "slab_mutex_wait_ms", "slab_mutex_longest_ms")


class Observed:
    """An observatory whose windows are made beforehand; the mutex may be learnt after the first of them."""

    def __init__(self, *windows: Window, csd: bool = True, waits: bool = True, learns: bool = False) -> None:
        self.windows = list(windows)
        self.requests = object() if csd else None
        self.waits_known = waits
        self._learns = learns

    async def sample(self) -> Any:
        return SimpleNamespace(at_ns=0)

    def window(self, *_: object) -> Window:
        return self.windows.pop(0)

    async def between_windows(self) -> None:
        self.waits_known = self.waits_known or self._learns


async def summary(observed: Observed, *, control: bool = True) -> dict[str, Any]:
    """What is told when all its windows were seen."""
    armed: Any = SimpleNamespace(observatory=observed, control=SimpleNamespace(passed=control))
    passive = Passive(replace(Config(), service=ServiceConfig(summary_period_s=1.0)), armed, lambda _: None)
    passive._containers = 2
    await passive.look()
    while observed.windows:
        await passive.look()
    told = passive.summary_if_due(1.0)
    assert told is not None
    return told


async def test_what_was_seen_is_billed() -> None:
    told = await summary(Observed(window("passive", TLB, kick(4), waits=(wait(3),))))
    assert told["creation_path_broadcasts_per_container"] == 2.0
    assert [row["reason"] for row in told["bill"]] == ["flush_tlb_func", "kick_all_cpus_sync"]
    assert [told[key] for key in WAITS] == [3, 18.0, 9.0]
    silent = await summary(Observed(window("passive", TLB)))
    assert [silent[key] for key in WAITS] == [0, 0.0, 0.0]
    assert silent["creation_path_broadcasts_per_container"] == 0.0


@pytest.mark.parametrize(("csd", "control"), [(False, True), (True, False)])
async def test_without_a_probe_that_is_proved_there_is_no_bill(csd: bool, control: bool) -> None:
    told = await summary(Observed(window("passive", TLB), csd=csd), control=control)
    assert told["bill"] is None
    assert told["creation_path_broadcasts_per_container"] is None
    assert told["slab_mutex_waits"] == 0  # another probe's


async def test_waits_that_were_not_watched_all_the_time_are_not_known() -> None:
    one = window("passive", TLB)
    for observed in (Observed(one, waits=False), Observed(one, one, waits=False, learns=True)):
        told = await summary(observed)
        assert [told[key] for key in WAITS] == [None] * 3
        assert told["bill"]
