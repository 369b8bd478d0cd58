"""How far the daemon is, as the status file has it: what the next trial waits for, guard and budget."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from fake_daemon import CALM, DOCKER, GONE, FakeDaemon, config_in, fake_daemon
from kickwatch.configuration.types import BudgetConfig, Config, GuardConfig, Preset, WorkloadConfig
from kickwatch.outlets.live_status import BudgetSpent, GuardStatus, Progress, Waiting
from kickwatch.service.progress import progress_of
from kickwatch.service.schedule import Schedule
from kickwatch.service.session import ExperimentSession


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


def waits(daemon: FakeDaemon, config: Config) -> tuple[Waiting | None, float | None]:
    found = progress_of(config, daemon.parts)
    return found.waits_for, found.next_trial_in_s


async def test_between_two_trials(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.parts.state.due_s = daemon.switches.now_s + 34.0
    daemon.parts.state.engine = DOCKER
    daemon.parts.heartbeat.status("between two trials")
    found = progress_of(config, daemon.parts)
    assert (found.doing, found.waits_for, found.next_trial_in_s) == ("between two trials", Waiting.INTERVAL, 34.0)
    assert (found.mode, found.engine, found.cpus_online) == ("experiment", str(DOCKER), 2)
    assert (found.guard, found.trial_since_s) == (GuardStatus(), None)


async def test_during_a_trial_it_says_for_how_long(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.parts.state.trial_since_s = daemon.switches.now_s - 12.0
    found = progress_of(config, daemon.parts)
    assert (found.trial_since_s, found.waits_for, found.next_trial_in_s) == (12.0, None, None)


async def test_a_session_notes_when_its_trial_runs(config: Config) -> None:
    daemon = await fake_daemon(config, trials=1)
    seen: list[Progress] = []
    daemon.switches.at(0.0, lambda: seen.append(progress_of(config, daemon.parts)))
    await ExperimentSession(config, daemon.parts).run()
    assert [one.trials_begun for one in seen if one.trial_since_s is not None] == [1]
    assert daemon.parts.state.trial_since_s is None


async def test_a_full_budget(config: Config) -> None:
    config = replace(config, budget=BudgetConfig(containers_per_hour=15, containers_per_day=100, cpu_share=1.0))
    daemon = await fake_daemon(config)
    await daemon.parts.ledger.charge(10)
    await daemon.parts.ledger.correct(10)
    waiting, seconds = waits(daemon, config)
    assert waiting is Waiting.BUDGET
    assert seconds == pytest.approx(3600.0, abs=1.0)
    budget = progress_of(config, daemon.parts).budget
    assert budget is not None
    assert budget.containers == (
        BudgetSpent(window="hour", used=10, most=15),
        BudgetSpent(window="day", used=10, most=100),
    )
    assert budget.cpu_share_most == 1.0
    assert await Schedule(config, daemon.parts).blocked_before(10)


async def test_no_limit_is_none_and_not_zero(config: Config) -> None:
    config = replace(config, budget=BudgetConfig(preset=Preset.STRESS))
    budget = progress_of(config, (await fake_daemon(config)).parts).budget
    assert budget is not None
    assert {one.most for one in budget.containers} == {None}
    assert budget.cpu_share_most is None


async def test_the_guard_shows_what_it_read_and_pauses(config: Config) -> None:
    config = replace(config, guard=GuardConfig(containers=5))
    daemon = await fake_daemon(config)
    guard = daemon.parts.state.guard
    guard.configure(config.guard, config.budget.preset)
    await guard.look(CALM)
    daemon.switches.now_s += 7.0
    calm = progress_of(config, daemon.parts).guard
    assert calm is not None
    assert (calm.paused, calm.what, calm.age_s) == (False, "", 7.0)
    by_name = {one.name: one for one in calm.readings}
    assert (by_name["containers"].value, by_name["containers"].limit, by_name["containers"].exceeded) == (1.0, 5, False)
    assert by_name["io pressure"].value is None
    assert (by_name["available memory"].floor, by_name["available memory"].unit) == (True, "%")
    await guard.look(replace(CALM, containers=6))
    paused = progress_of(config, daemon.parts)
    assert paused.guard is not None
    assert (paused.guard.paused, paused.guard.what) == (True, "containers 6 (limit 5)")
    assert [one.name for one in paused.guard.readings if one.exceeded] == ["containers"]
    assert (paused.waits_for, paused.next_trial_in_s) == (Waiting.GUARD, None)
    await guard.off()
    assert progress_of(config, daemon.parts).guard == GuardStatus()


async def test_what_no_time_ends(config: Config) -> None:
    daemon = await fake_daemon(config)
    daemon.switches.drain("file")
    await daemon.parts.state.drain.look()
    assert waits(daemon, config) == (Waiting.DRAIN, None)
    daemon.switches.drain("")
    await daemon.parts.state.drain.look()
    await daemon.parts.state.backoff.lost(GONE)
    assert waits(daemon, config) == (Waiting.ENGINE, None)
    passive = replace(config, workload=WorkloadConfig(enabled=False))
    assert waits(daemon, passive) == (None, None)
    assert progress_of(passive, daemon.parts).mode == "passive"


async def test_a_daemon_that_has_made_its_trials_waits_for_nothing(config: Config) -> None:
    daemon = await fake_daemon(config, trials=0)
    assert waits(daemon, config) == (None, None)
