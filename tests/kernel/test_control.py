"""The positive control on the real kernel: it passes, and it fails if the probe is broken on purpose."""

from functools import partial
from pathlib import Path

import pytest

from kickwatch.observe import requests
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.control import BARRIERS, SINGLES, control_cpus, positive_control
from kickwatch.observe.observatory import Observatory
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


async def test_it_fails_if_the_probe_was_detached(observatory: Observatory) -> None:
    assert observatory.requests is not None
    observatory.requests.probe.detach()
    control = await positive_control(observatory)
    assert not control.passed
    assert control.detail.startswith("0 of ")


async def test_it_fails_if_a_map_has_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BpfObject", partial(BpfObject, max_entries={"cells": 1}))
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


def test_isolated_and_tickless_cpus_are_not_used(tmp_path: Path) -> None:
    cpu = tmp_path / "devices/system/cpu"
    cpu.mkdir(parents=True)
    everyone = control_cpus(tmp_path)
    (cpu / "isolated").write_text(f"{everyone[0]}\n")
    (cpu / "nohz_full").write_text("(null)\n")
    assert control_cpus(tmp_path) == everyone[1:]
