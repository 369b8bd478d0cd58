"""The guard reports its pauses once, before and after an engine answers, and across reloads."""

import pytest
from msgspec.structs import replace

from fake_daemon import CALM, Recorder
from kickwatch.configuration.types import GuardConfig, Preset
from kickwatch.node.pressure import Cause, Pressure
from kickwatch.outlets.events import GuardCalm, GuardPaused, PausePhase
from kickwatch.outlets.outlet import Outlets
from kickwatch.service.node_guard import NodeGuard

LIMITS = GuardConfig(containers=5, resume_after_s=30.0)
CROWDED = replace(CALM, containers=6)
FULL = replace(CALM, available_memory_pct=1.0)


class Guarded:
    """A guard, its clock and its reports."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.recorder = Recorder()
        self.guard = NodeGuard(LIMITS, Preset.SENTINEL, Outlets([self.recorder]).report, lambda: self.now_s)

    async def look(self, pressure: Pressure, after_s: float = 10.0) -> str:
        self.now_s += after_s
        return await self.guard.look(pressure)

    async def look_without_engine(self, pressure: Pressure, after_s: float = 10.0) -> str:
        self.now_s += after_s
        return await self.guard.look_without_engine(replace(pressure, containers=None))

    @property
    def phases(self) -> list[PausePhase]:
        return [event.phase for event in self.recorder.of(GuardPaused)]


async def test_a_pause_begins_once_counts_its_time_and_ends_once() -> None:
    one = Guarded()
    assert await one.look(CALM) == ""
    assert await one.look(CROWDED) == "containers 6 (limit 5)"
    for after_s in (10.0, 10.0, 30.0):
        await one.look(CALM, after_s)
    assert one.phases == [PausePhase.BEGAN, *[PausePhase.CONTINUES] * 2, PausePhase.ENDED]
    pauses = one.recorder.of(GuardPaused)
    assert [pause.seconds for pause in pauses] == [0.0, 10.0, 10.0, 30.0]
    assert (pauses[-1].paused_s, pauses[-1].causes) == (50.0, (Cause.CONTAINERS,))
    assert one.recorder.events[0] == GuardCalm()
    assert await one.look(CALM) == ""
    assert one.recorder.events[-1] == GuardCalm()


async def test_a_pause_goes_on_through_a_reload_with_the_same_thresholds() -> None:
    one = Guarded()
    await one.look(CROWDED)
    one.guard.configure(LIMITS, Preset.SENTINEL)
    assert await one.look(CROWDED) == "containers 6 (limit 5)"
    assert one.phases == [PausePhase.BEGAN, PausePhase.CONTINUES]


@pytest.mark.parametrize(
    ("config", "preset"), [(replace(LIMITS, containers=9), Preset.SENTINEL), (LIMITS, Preset.STRESS)]
)
async def test_other_thresholds_start_without_a_pause(config: GuardConfig, preset: Preset) -> None:
    one = Guarded()
    await one.look(replace(CROWDED, load_per_cpu=9.0))
    one.guard.configure(config, preset)
    await one.look(CALM)
    assert one.recorder.names() == ["GuardPaused", "GuardCalm"]


async def test_before_an_engine_answers_memory_pauses_as_well() -> None:
    one = Guarded()
    assert "available memory 1.0 %" in await one.look_without_engine(FULL)
    assert "available memory 1.0 %" in await one.look_without_engine(FULL)
    one.guard.configure(LIMITS, Preset.SENTINEL)  # a reload meanwhile
    assert "available memory 1.0 %" in await one.look_without_engine(FULL)
    await one.look_without_engine(CALM)
    assert await one.look_without_engine(CALM, 30.0) == ""
    assert one.phases == [PausePhase.BEGAN, *[PausePhase.CONTINUES] * 3, PausePhase.ENDED]


async def test_a_pause_for_containers_keeps_no_session_from_counting_them_and_is_not_reported_again() -> None:
    """Without an engine the containers cannot be counted: a pause that they caused must not wait for that."""
    one = Guarded()
    await one.look(CROWDED)
    assert await one.look_without_engine(CROWDED) == ""
    assert one.phases == [PausePhase.BEGAN]
    await one.look(CALM)
    await one.look(CALM, 30.0)
    assert one.phases == [PausePhase.BEGAN, PausePhase.CONTINUES, PausePhase.ENDED]
    assert sum(pause.seconds for pause in one.recorder.of(GuardPaused)) == one.recorder.of(GuardPaused)[-1].paused_s
