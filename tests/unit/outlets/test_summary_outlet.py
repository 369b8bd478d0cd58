"""The summary: once a period, with the condition. Passive mode adds up its own."""

from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from beliefs import believing
from builders import trial
from fake_daemon import config_in
from kickwatch.configuration.types import ServiceConfig, WorkloadConfig
from kickwatch.detect.state import TrialOutcome
from kickwatch.model import Condition, Verdict
from kickwatch.node.pressure import Cause
from kickwatch.outlets.events import Beat, GuardPaused, OutletEvent, PassiveSummary, PausePhase, TrialTaken
from kickwatch.outlets.summary import SummaryOutlet

TAKEN = TrialTaken(trial(), TrialOutcome(trial="a", verdict=Verdict.QUIET), (), None, {})


def beat(condition: Condition = Condition.QUIET) -> Beat:
    return Beat(believing(condition=condition, verdict_age_s=1.25), "", engine_lost=False, budget_unwritten=False)


def pause(phase: PausePhase, seconds: float) -> GuardPaused:
    return GuardPaused(phase, (Cause.LOAD,), seconds, 7.0, "load 9")


class Clock:
    """A clock of the test's."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def summaries(outlet: SummaryOutlet, *events: OutletEvent) -> list[Any]:
    with structlog.testing.capture_logs() as logs:
        for event in events:
            await outlet.take(event)
    return list(logs)


async def test_a_period_has_one_summary_of_its_trials_and_pauses(tmp_path: Path) -> None:
    clock = Clock()
    outlet = SummaryOutlet(clock)
    await outlet.start(config_in(tmp_path, service=ServiceConfig(summary_period_s=60.0)))
    pauses = [pause(PausePhase.BEGAN, 0.0), pause(PausePhase.CONTINUES, 2.0), pause(PausePhase.ENDED, 3.0)]
    clock.now_s = 59.0
    assert await summaries(outlet, TAKEN, *pauses, beat()) == []
    clock.now_s = 61.0
    (summary,) = await summaries(outlet, beat(), beat())
    assert list(summary)[:4] == ["condition", "reasons", "verdict_age_s", "more_containers"]
    assert (summary["condition"], summary["verdict_age_s"]) == ("quiet", 1.2)
    assert (summary["mode"], summary["trials"], summary["paused_s"], summary["period_s"]) == ("experiment", 1, 5.0, 61)
    clock.now_s = 122.0
    (empty,) = await summaries(outlet, beat(Condition.UNKNOWN))
    assert (empty["trials"], empty["paused_s"], empty["condition"]) == (0, 0.0, "unknown")


async def test_passive_mode_has_its_own(tmp_path: Path) -> None:
    clock = Clock()
    outlet = SummaryOutlet(clock)
    config = config_in(tmp_path, workload=WorkloadConfig(enabled=False))
    await outlet.start(config)
    clock.now_s = 1e6
    (summary,) = await summaries(outlet, beat(), PassiveSummary(believing(), {"mode": "passive", "containers": 3}))
    assert summary["event"] == "kickwatch.summary"
    assert (summary["condition"], summary["mode"], summary["containers"]) == ("quiet", "passive", 3)
    await outlet.reload(replace(config, workload=WorkloadConfig()))
    assert await summaries(outlet, beat()) == []  # its period begins now
    clock.now_s += config.service.summary_period_s
    assert [log["mode"] for log in await summaries(outlet, beat())] == ["experiment"]


@pytest.mark.parametrize("phase", PausePhase)
async def test_the_first_moment_of_a_pause_adds_nothing(phase: PausePhase, tmp_path: Path) -> None:
    clock = Clock()
    outlet = SummaryOutlet(clock)
    await outlet.start(config_in(tmp_path))
    clock.now_s = 1e5
    (summary,) = await summaries(outlet, pause(phase, 4.0), beat())
    assert summary["paused_s"] == (0.0 if phase is PausePhase.BEGAN else 4.0)


async def test_hours_in_passive_mode_are_no_period_without_trials(tmp_path: Path) -> None:
    """A reload to passive mode and back: its time is in its own summaries."""
    clock = Clock()
    outlet = SummaryOutlet(clock)
    trials = config_in(tmp_path, service=ServiceConfig(summary_period_s=60.0))
    await outlet.start(trials)
    await summaries(outlet, TAKEN)
    clock.now_s = 40.0
    await outlet.reload(replace(trials, workload=WorkloadConfig(enabled=False)))
    clock.now_s = 10_000.0
    await outlet.reload(trials)
    clock.now_s = 10_010.0
    await outlet.reload(trials)
    assert await summaries(outlet, beat()) == []
    clock.now_s = 10_021.0
    (summary,) = await summaries(outlet, beat())
    assert (summary["trials"], summary["period_s"]) == (1, 61)
