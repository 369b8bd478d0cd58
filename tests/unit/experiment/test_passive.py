"""The bill in passive mode: a figure that was not observed is unknown, not zero."""

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
    """An observatory with given windows. `learns`: the address of slab_mutex is found after the first one."""

    def __init__(self, *windows: Window, requests: bool = True, waits: bool = True, learns: bool = False) -> None:
        self.windows = list(windows)
        self.requests = object() if requests else None
        self.waits_known = waits
        self._learns = learns

    async def sample(self) -> Any:
        return SimpleNamespace(at_ns=0)

    def window(self, *_: object) -> Window:
        return self.windows.pop(0)

    async def between_windows(self) -> None:
        self.waits_known = self.waits_known or self._learns


async def summary(observed: Observed, *, control: bool = True) -> dict[str, Any]:
    """The summary after all its windows."""
    armed: Any = SimpleNamespace(observatory=observed, control=SimpleNamespace(passed=control))
    passive = Passive(replace(Config(), service=ServiceConfig(summary_period_s=1.0)), armed, lambda _: None)
    passive._containers = 2
    await passive.look()
    while observed.windows:
        await passive.look()
    fields = passive.summary_if_due(1.0)
    assert fields is not None
    return fields


async def test_the_bill_has_what_the_probes_saw() -> None:
    fields = await summary(Observed(window("passive", TLB, kick(4), waits=(wait(3),))))
    assert fields["creation_path_broadcasts_per_container"] == 2.0
    assert [row["reason"] for row in fields["bill"]] == ["flush_tlb_func", "kick_all_cpus_sync"]
    assert [fields[key] for key in WAITS] == [3, 18.0, 9.0]
    without = await summary(Observed(window("passive", TLB)))
    assert [without[key] for key in WAITS] == [0, 0.0, 0.0]
    assert without["creation_path_broadcasts_per_container"] == 0.0


@pytest.mark.parametrize(("requests", "control"), [(False, True), (True, False)])
async def test_without_a_working_probe_there_is_no_bill(requests: bool, control: bool) -> None:
    fields = await summary(Observed(window("passive", TLB), requests=requests), control=control)
    assert fields["bill"] is None
    assert fields["creation_path_broadcasts_per_container"] is None
    assert fields["slab_mutex_waits"] == 0  # from the other probe


async def test_waits_that_were_not_observed_all_the_time_are_unknown() -> None:
    one = window("passive", TLB)
    for observed in (Observed(one, waits=False), Observed(one, one, waits=False, learns=True)):
        fields = await summary(observed)
        assert [fields[key] for key in WAITS] == [None] * 3
        assert fields["bill"]
