"""The positive control on the real kernel: it passes, and it fails if the probe is broken on purpose."""

from typing import Any

import pytest

from kickwatch.model import WindowKind
from kickwatch.native.driver import Answer, Helper
from kickwatch.observe import control as control_module
from kickwatch.observe import requests
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.control import BARRIERS, SINGLES, control_cpus, positive_control
from kickwatch.observe.observatory import Observatory
from membarrier_storm import membarrier_storm
from needs import ipi_rung

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


async def test_it_passes_20_times_of_20(observatory: Observatory) -> None:
    for _ in range(20):
        control = await positive_control(observatory)
        assert control.passed, control
        assert control.calls is not None
        assert control.singles is not None
        assert control.calls.expected_high <= BARRIERS
        assert control.singles.expected_high <= SINGLES


class BesideAnother(Helper):
    """Another process makes the same requests between the same two samples."""

    async def ask(self, command: str, deadline_s: float) -> Answer:
        cpus = ",".join(map(str, control_cpus()))
        async with Helper(["barriers", "31", "11", cpus]) as other:
            await other.ask(command, deadline_s)
        return await super().ask(command, deadline_s)


async def test_it_passes_beside_processes_that_call_membarrier_all_the_time(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the sender distinguishes their requests from ours."""
    monkeypatch.setattr(control_module, "Helper", BesideAnother)
    with membarrier_storm(control_cpus()):
        before = await observatory.sample()
        control = await positive_control(observatory)
        after = await observatory.sample()
    assert control.passed, control
    assert control.calls is not None
    window = observatory.window(WindowKind.CONTROL, before, after)
    sent = {cell.func: cell for cell in window.cells}
    assert sent["ipi_mb"].calls >= control.calls.seen + 31
    assert sent["ipi_rseq"].requests > SINGLES


async def test_it_fails_if_the_probe_was_detached(observatory: Observatory) -> None:
    assert observatory.requests is not None
    observatory.requests.probe.detach()
    control = await positive_control(observatory)
    assert not control.passed
    assert control.detail.startswith("0 of ")


async def test_it_fails_if_a_map_has_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def shrink(name: str, max_entries: dict[str, int], **options: Any) -> BpfObject:
        return BpfObject(name, max_entries | {"cells": 1}, **options)

    monkeypatch.setattr(requests, "BpfObject", shrink)
    shrunk = await Observatory.open()
    try:
        assert shrunk.observers.ipis == ipi_rung()
        control = await positive_control(shrunk)
    finally:
        shrunk.close()
    assert not control.passed


async def test_it_fails_without_a_probe_and_tells_so(observatory: Observatory) -> None:
    blind = Observatory(observatory.host, observatory.cpus_online, observatory.symbols)
    assert "no probe is armed" in (await positive_control(blind)).detail


async def test_it_passes_on_chosen_cpus_in_any_order_though_they_are_isolated(observatory: Observatory) -> None:
    first, second, *_ = control_cpus()
    observatory.isolated_cpus = (first, second)
    control = await positive_control(observatory, (second, first))
    assert control.passed, control
    assert control.cpus == (second, first)
