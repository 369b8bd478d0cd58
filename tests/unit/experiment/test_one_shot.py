"""How many containers `trial --until-decided` starts next, and where the time limit of `gate` ends a run."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.detect.single import Single, containers_needed, one_shot
from kickwatch.detect.verdict import VerdictReason
from kickwatch.experiment import one_shot as module
from kickwatch.experiment.one_shot import RunLimits, more_of
from kickwatch.experiment.steps import texts_to
from kickwatch.model import Trial, Verdict
from virtual_loop import run_virtually
from watching import serial


def undecided(more: int | None, *reasons: str) -> Single:
    return Single(
        verdict=Verdict.UNKNOWN,
        reasons=reasons,
        findings=(),
        error_rate=1e-4,
        more_containers=more,
        evidence_broadcasting="1",
        evidence_quiet="1",
        evidence_needed="1e4",
        text="",
    )


@pytest.mark.parametrize(("wanted", "next_trial"), [(3, 10), (14, 14), (900, 200)])
def test_what_silence_needs_is_known_exactly(wanted: int, next_trial: int) -> None:
    assert more_of(undecided(wanted, VerdictReason.INSUFFICIENT_EVIDENCE), 23) == next_trial


@pytest.mark.parametrize(("wanted", "before", "next_trial"), [(20, 23, 11), (5, 23, 10), (99, 60, 30), (900, 800, 200)])
def test_pairs_are_asked_for_in_smaller_portions(wanted: int, before: int, next_trial: int) -> None:
    """The estimate repeats the outlasted pairs of before, and is too high."""
    assert more_of(undecided(wanted, VerdictReason.BROADCASTS_ELSEWHERE), before) == next_trial


@pytest.mark.parametrize(("alpha", "containers"), [(0.1, 10), (1e-2, 12), (1e-4, 23), (1e-6, 35)])
def test_the_error_rate_decides_how_many_containers_start(alpha: float, containers: int) -> None:
    assert containers_needed(alpha) == containers
    assert one_shot([serial(0, number=containers)], alpha).verdict is Verdict.QUIET
    if containers > 10:
        assert one_shot([serial(0, number=containers - 1)], alpha).verdict is Verdict.UNKNOWN


def trials_within(
    monkeypatch: pytest.MonkeyPatch, limits: RunLimits, containers: int, each_s: float, broadcasts: int = 0
) -> list[Trial]:
    """Those that a run completes if a container takes `each_s`, on a virtual clock."""

    class Run:
        def __init__(self, _rig: Any, containers: int, *_: Any, one_shot: bool) -> None:
            assert one_shot
            self.containers = containers

        async def run(self) -> Trial:
            await asyncio.sleep(self.containers * each_s)
            return serial(broadcasts, number=self.containers)

    async def unchanged() -> bool:
        return False

    monkeypatch.setattr(module, "TrialRun", Run)
    rig: Any = SimpleNamespace(engine_changed=unchanged)

    async def run() -> list[Trial]:
        monkeypatch.setattr(module.time, "monotonic", asyncio.get_running_loop().time)
        from_now = replace(limits, begun_s=module.time.monotonic())
        return await module._trials(rig, containers, texts_to(lambda _: None), from_now)

    return run_virtually(run())


def test_without_a_time_limit_a_run_goes_on_until_it_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = trials_within(monkeypatch, RunLimits(until_decided=True), 12, 0)
    assert [len(trial.containers) for trial in trials] == [12, 11]


def test_a_trial_that_the_time_limit_cuts_off_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trials_within(monkeypatch, RunLimits(until_decided=True, time_limit_s=0.05), 12, 1) == []


def test_no_trial_is_begun_that_would_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RunLimits(until_decided=True, time_limit_s=0.3)
    trials = trials_within(monkeypatch, limits, 12, 0.02)
    assert [len(trial.containers) for trial in trials] == [12]  # 60 ms are left


def test_the_next_trial_is_as_long_as_the_time_allows() -> None:
    limits = RunLimits(time_limit_s=30)
    assert limits.affordable(100, 1) == 29  # a moment of the 30 s is gone
    assert limits.affordable(100, 10) == 0
    assert RunLimits().affordable(100, 10) == 100


def test_a_time_limit_of_an_engine_is_not_taken_for_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        async def run(self) -> Trial:
            raise TimeoutError("the engine did not answer")

    monkeypatch.setattr(module, "TrialRun", Run)
    rig: Any = SimpleNamespace()
    with pytest.raises(TimeoutError, match="the engine"):
        asyncio.run(module._trials(rig, 12, texts_to(lambda _: None), RunLimits(time_limit_s=60)))
