"""A trial as the daemon runs it: the settings from the configuration, and what remains known however it ends."""

from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.configuration.types import Config, Design, TrialConfig
from kickwatch.errors import EngineError
from kickwatch.experiment import trial_run
from kickwatch.experiment.steps import texts_to
from kickwatch.experiment.trial_run import TrialRun
from kickwatch.experiment.whole_windows import order_of
from kickwatch.journal.remark import Remark, RemarkKind
from virtual_trial import FakeObservers, FakeWorkload, Stage, VirtualClock

REMARK = Remark(RemarkKind.KNOB_IGNORED, "the kernel ignores this knob")
CONFIG = TrialConfig(window_s=3.0, settle_s=7.0, seed=40, canary_memcgs=9, design=Design.WHOLE)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(trial_run, "SystemClock", lambda: VirtualClock(stage))
    return stage


def rig(stage: Stage, config: TrialConfig = CONFIG) -> Any:
    def workload(trial_id: str, containers: int) -> FakeWorkload:
        assert trial_id
        assert containers
        made = FakeWorkload(stage)
        made.remarks = [REMARK]  # type: ignore[attr-defined]
        return made

    plan = SimpleNamespace(concurrency=2, hold_s=0.25)
    return SimpleNamespace(
        setup=SimpleNamespace(config=Config(trial=config), plan=lambda *_: plan),
        armed=FakeObservers(stage),
        workload=workload,
        alive=lambda: stage.alive_at_s.append(stage.now_s),
        life_s=0.3,
    )


async def test_the_settings_are_the_configurations(stage: Stage) -> None:
    run = TrialRun(rig(stage), 4, texts_to(stage.texts.append), 3)
    settings = run._settings()
    assert (settings.containers, settings.window_s, settings.settle_s) == (4, 3.0, 7.0)
    assert (settings.canary_memcgs, settings.concurrency, settings.hold_s) == (9, 2, 0.25)
    record = await run.run()
    assert record.trial_id == settings.trial_id == run.trial_id
    assert (record.seed, record.order) == (43, order_of(43))
    assert record.concurrency == 2
    assert record.canary is not None
    assert record.canary.memcgs == 9
    assert stage.texts[-1] == "canary, 9 memory cgroups"
    assert stage.alive_at_s


async def test_each_trial_of_a_daemon_has_another_order_under_one_seed(stage: Stage) -> None:
    runs = [TrialRun(rig(stage), 1, texts_to(stage.texts.append), number) for number in range(20)]
    seeds = [run._settings().seed for run in runs]
    assert seeds == list(range(40, 60))
    assert len({order_of(seed) for seed in seeds}) == 2


def test_without_a_seed_each_trial_draws_one(stage: Stage) -> None:
    runs = [TrialRun(rig(stage, TrialConfig(seed=0)), 1, texts_to(stage.texts.append)) for _ in range(3)]
    assert len({run._settings().seed for run in runs}) == 3


async def test_what_began_is_known_after_a_failure(stage: Stage) -> None:
    run = TrialRun(rig(stage), 4, texts_to(stage.texts.append))
    assert run.begun == 0
    stage.fail_at = "container"
    with pytest.raises(EngineError):
        await run.run()
    assert run.begun == 1
    assert run.remarks == [REMARK]


def test_two_trials_of_three_are_paired(stage: Stage) -> None:
    def designs(design: Design) -> list[bool]:
        here = rig(stage, TrialConfig(design=design))
        return [TrialRun(here, 1, texts_to(stage.texts.append), number)._settings().paired for number in range(6)]

    assert designs(Design.MIXED) == [True, True, False, True, True, False]
    assert designs(Design.PAIRED) == [True] * 6
    assert designs(Design.WHOLE) == [False] * 6
    run = TrialRun(rig(stage, TrialConfig()), 1, texts_to(stage.texts.append), 2, one_shot=True)
    assert run._settings().paired


async def test_the_next_trial_expects_lives_as_long_as_most_of_this_one(stage: Stage) -> None:
    here = rig(stage)
    first = TrialRun(here, 4, texts_to(stage.texts.append))
    assert first._settings().life_s == 0.3
    await first.run()
    assert TrialRun(here, 4, texts_to(stage.texts.append))._settings().life_s == pytest.approx(0.227)
