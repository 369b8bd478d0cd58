"""When a trial may begin: drains, pauses, budgets and reloads in turn, on a virtual clock."""

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from fake_daemon import CALM, FakeDaemon, FakeRig, config_in, fake_daemon
from kickwatch.configuration.types import BudgetConfig, Config, GuardConfig, StateConfig, TrialConfig
from kickwatch.outlets.events import Drained, GuardCalm, GuardPaused, PausePhase, Undrained
from kickwatch.process.signals import Switches
from kickwatch.service import parts as parts_module
from kickwatch.service.schedule import Schedule

GUARD = GuardConfig(poll_s=2.0, containers=5, resume_after_s=30.0, cpu_pressure_pct=0, load_per_cpu=0)
CROWDED = replace(CALM, containers=6)
HOURLY_12 = BudgetConfig(containers_per_hour=12, cpu_share=1.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


class Scheduled:
    """A schedule on a fake node."""

    def __init__(self, config: Config, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.switches, self.node, self.recorder = daemon.switches, daemon.node, daemon.recorder
        self.rig = FakeRig(daemon.node)
        self.schedule = Schedule(config, daemon.parts)

    async def waits(self, at_most_s: float = 1e6) -> float | None:
        """How long until a trial may begin; None if a reload is requested first, or nothing happens in that time."""
        begin_s = self.switches.now_s
        self.switches.at(at_most_s, self.switches.reload)
        if await self.schedule.until_due(self.rig):
            return self.switches.now_s - begin_s
        return None

    @property
    def statuses(self) -> list[str]:
        return self.daemon.notifier.statuses


async def scheduled(config: Config) -> Scheduled:
    return Scheduled(config, await fake_daemon(config))


async def test_a_trial_may_begin_at_once_if_nothing_blocks_it(config: Config) -> None:
    one = await scheduled(config)
    assert await one.waits() == 0.0
    assert "progress" in one.daemon.notifier.sent
    assert "Beat" in one.recorder.names()


async def test_the_interval_and_its_jitter_pass_first(config: Config) -> None:
    one = await scheduled(replace(config, trial=TrialConfig(interval_s=60.0, jitter=0.5)))
    one.schedule.rest()
    assert await one.waits() == 75.0  # the fake chance draws half
    assert one.statuses == ["between two trials"]


async def test_a_reload_comes_first(config: Config) -> None:
    one = await scheduled(replace(config, trial=TrialConfig(interval_s=600.0)))
    one.schedule.rest()
    assert await one.waits(at_most_s=100.0) is None
    assert one.switches.reload_asked


async def test_a_drain_blocks_until_it_ends(config: Config) -> None:
    one = await scheduled(config)
    one.switches.drain("file")
    one.switches.at(100.0, lambda: one.switches.drain(""))
    assert await one.waits() == 100.0
    assert one.statuses == ["drained (drain file present): not starting containers"]
    assert [event for event in one.recorder.events if isinstance(event, Drained | Undrained)] == [
        Drained("file"),
        Undrained("file"),
    ]


async def test_the_next_session_does_not_report_the_drain_again(config: Config) -> None:
    one = await scheduled(config)
    one.switches.drain("file")
    for _ in range(2):
        assert await one.waits(at_most_s=10.0) is None
        one.switches.reload_asked = False
        one.schedule = Schedule(config, one.daemon.parts)
    assert one.recorder.of(Drained) == [Drained("file")]


async def test_the_budget_blocks_the_second_trial_for_an_hour(config: Config) -> None:
    config = replace(config, budget=HOURLY_12)
    one = await scheduled(config)
    await one.daemon.parts.ledger.charge(10)
    await one.daemon.parts.ledger.correct()
    assert await one.waits() == pytest.approx(3600.0)
    assert one.statuses == ["budget: 10 of 12 containers in the last hour, a trial needs 10"]


async def test_a_wait_for_the_budget_ends_with_a_reload_to_a_larger_one(config: Config) -> None:
    """Only the interval outlives a reload: the budget is asked again."""
    one = await scheduled(replace(config, budget=HOURLY_12))
    await one.daemon.parts.ledger.charge(10)
    await one.daemon.parts.ledger.correct()
    assert await one.waits(at_most_s=100.0) is None
    one.switches.reload_asked = False
    one.daemon.parts.ledger.adopt(config)
    one.schedule = Schedule(config, one.daemon.parts)
    assert await one.waits() == 0.0


async def test_nodes_that_wait_for_the_same_budget_continue_at_different_times(config: Config) -> None:
    config = replace(config, budget=HOURLY_12, trial=TrialConfig(interval_s=0.0, jitter=0.5))
    due_s = []
    for number in range(10):
        own = replace(config, state=StateConfig(directory=f"{config.state.directory}-{number}"))
        one = Scheduled(own, await fake_daemon(own, draw=number / 10))
        await one.daemon.parts.ledger.charge(10)
        await one.daemon.parts.ledger.correct()
        due_s.append(await one.waits())
    assert due_s == pytest.approx([3600.0 * (1 + number / 20) for number in range(10)])


async def test_looks_in_quick_succession_do_not_use_up_the_cpu_share_they_wait_for(config: Config) -> None:
    """Each look costs as much CPU time as a share of 1 % grants in 0.4 s: looks every 0.4 s would never end."""
    budget = BudgetConfig(cpu_share=0.01, containers_per_hour=1000)
    one = await scheduled(replace(config, budget=budget, guard=GuardConfig(poll_s=2.0, enabled=False)))
    ledger, looks = one.daemon.parts.ledger, 0
    await ledger.charge(10)
    await ledger.correct()

    def costly() -> float:
        nonlocal looks
        looks += 1
        return 0.1 + 0.004 * looks

    ledger._cpu_s = costly
    assert await one.waits() is not None
    assert looks < 5


async def test_the_guard_blocks_and_its_pause_is_counted(config: Config) -> None:
    one = await scheduled(replace(config, guard=GUARD))
    one.node.readings = CROWDED

    def calm() -> None:
        one.node.readings = CALM

    one.switches.at(20.0, calm)
    assert await one.waits() == 50.0  # 20 s of pressure, 30 s of calm
    assert one.statuses[0] == "paused: containers 6 (limit 5)"
    assert one.statuses[-1].startswith("paused: calm for ")
    pauses = one.recorder.of(GuardPaused)
    assert (pauses[0].phase, pauses[-1].phase) == (PausePhase.BEGAN, PausePhase.ENDED)
    assert sum(pause.seconds for pause in pauses) == pauses[-1].paused_s == 50.0


async def test_a_guard_that_a_reload_disables_pauses_no_longer(config: Config) -> None:
    one = await scheduled(replace(config, guard=GUARD))
    one.node.readings = CROWDED
    assert await one.waits(at_most_s=10.0) is None
    one.switches.reload_asked = False
    one.schedule = Schedule(config, one.daemon.parts)
    assert await one.waits() == 0.0
    assert one.recorder.of(GuardCalm)


async def test_before_an_engine_answers_drain_budget_and_guard_block_in_this_order(config: Config) -> None:
    one = await scheduled(replace(config, guard=GUARD, budget=HOURLY_12))
    before = one.schedule.blocked_before
    assert await before(1) == ""
    one.node.readings = replace(CALM, available_memory_pct=1.0)
    assert await before(1) == "paused: available memory 1.0 % (limit 5 %)"
    await one.daemon.parts.ledger.charge(12)
    await one.daemon.parts.ledger.correct()
    assert (await before(1)).startswith("budget: 12 of 12 containers")
    one.switches.drain("signal")
    assert (await before(1)).startswith("drained (SIGUSR1 received)")


async def test_without_an_engine_containers_are_not_counted(config: Config) -> None:
    one = await scheduled(replace(config, guard=GUARD))
    one.node.readings = CROWDED
    assert await one.schedule.blocked_before(1) == ""


@pytest.mark.parametrize(("blind", "due_s"), [(False, 600.0), (True, parts_module._BLIND_RETRY_S)])
async def test_a_beat_repeats_the_control_sooner_while_it_fails(config: Config, blind: bool, due_s: float) -> None:
    config = replace(config, trial=TrialConfig(control_period_s=600.0))
    one = await scheduled(config)
    watch = one.daemon.parts.watch
    watch.blind, watch.controlled_s = blind, one.switches.now_s
    one.switches.now_s += due_s - 1.0
    await one.daemon.parts.beat(config)
    assert one.daemon.armed.proofs == 0
    one.switches.now_s += 1.0
    await one.daemon.parts.beat(config)
    assert one.daemon.armed.proofs == 1


async def test_the_real_switches_are_what_the_parts_take(config: Config) -> None:
    with Switches("") as switches:
        one = await scheduled(config)
        schedule = Schedule(config, dataclasses.replace(one.daemon.parts, switches=switches))
        assert await schedule.until_due(one.rig)
