"""When a trial may begin: drains, pauses, budgets and reloads in turn, with the real clock and real signals."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from kickwatch.configuration.types import (
    BudgetConfig,
    Config,
    GuardConfig,
    Preset,
    StateConfig,
    TrialConfig,
    WorkloadConfig,
)
from kickwatch.history.history import History
from kickwatch.node.cgroups import Cgroups
from kickwatch.process.sd_notify import Notifier
from kickwatch.process.signals import Switches
from kickwatch.service import budget_ledger as ledger_module
from kickwatch.service.budget import FILE
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.guard import Guard
from kickwatch.service.schedule import Schedule


class Told:
    """Stands in for the telemetry: what it is told of pauses."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, ...]] = []
        self.seconds = 0.0
        self.offs: list[str] = []
        self.guards: list[tuple[str, ...]] = []

    def off(self, reason: str) -> None:
        self.offs.append(reason)

    def pauses(self, causes: tuple[str, ...]) -> None:
        self.begun.append(causes)

    def guarded(self, causes: tuple[str, ...]) -> None:
        if self.guards[-1:] != [causes]:
            self.guards.append(causes)

    def paused(self, causes: tuple[str, ...], seconds: float) -> None:
        assert causes
        self.seconds += seconds


class AnEngine:
    """Stands in for the engine: how many containers run."""

    running_now = 0

    async def count_running(self) -> int:
        return self.running_now


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        workload=WorkloadConfig(containers_per_trial=10),
        trial=TrialConfig(interval_s=0.0),
        guard=GuardConfig(enabled=False, poll_s=0.1),
        state=StateConfig(directory=str(tmp_path / "state")),
    )


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


CGROUPS = Cgroups.read()


async def nothing() -> None:
    """A beat."""


def make_rig(engine: AnEngine | None = None) -> Any:
    return SimpleNamespace(engine=engine or AnEngine(), info=SimpleNamespace(root="/"), cgroups=CGROUPS)


async def schedule_of(config: Config, switches: Switches, told: Told | None = None) -> tuple[Schedule, BudgetLedger]:
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    return Schedule(config, ledger, switches, Notifier(), told or Told()), ledger  # type: ignore[arg-type]


async def soon(schedule: Schedule, engine: AnEngine | None = None) -> bool | None:
    """What `until_due` says within half a second; None where it waits."""
    try:
        return await asyncio.wait_for(schedule.until_due(make_rig(engine), nothing), 0.5)
    except TimeoutError:
        return None


async def test_a_trial_may_begin_at_once_where_nothing_speaks_against_it(config: Config) -> None:
    with Switches("") as switches:
        schedule, _ = await schedule_of(config, switches)
        assert await soon(schedule) is True


async def test_a_reload_goes_first_and_wakes(config: Config) -> None:
    with Switches("") as switches:
        schedule, _ = await schedule_of(replace(config, trial=TrialConfig(interval_s=60)), switches)
        schedule.rest()
        assert await soon(schedule) is None
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGHUP)
        assert await soon(schedule) is False


async def test_a_drain_is_said_once_and_so_is_its_end(config: Config, tmp_path: Path, logs: list[Any]) -> None:
    file = tmp_path / "drain"
    file.touch()
    with Switches(str(file)) as switches:
        told = Told()
        schedule, _ = await schedule_of(config, switches, told)
        assert await soon(schedule) is None
        file.unlink()
        assert await soon(schedule) is True
        assert await soon(schedule) is True
    assert told.offs == ["drained", ""]
    assert [(log["event"], log["by"]) for log in logs] == [
        ("kickwatch.drained", "file"),
        ("kickwatch.undrained", "file"),
    ]


async def test_a_drain_is_not_said_again_after_a_reload(config: Config, tmp_path: Path, logs: list[Any]) -> None:
    file = tmp_path / "drain"
    file.touch()
    with Switches(str(file)) as switches:
        for _ in range(2):
            schedule, _ledger = await schedule_of(config, switches)
            assert await soon(schedule) is None
    assert [log["event"] for log in logs] == ["kickwatch.drained"]


async def test_the_budget_holds_the_second_trial_and_a_restart_does_not_refill_it(config: Config) -> None:
    config = replace(config, budget=BudgetConfig(containers_per_hour=12))
    with Switches("") as switches:
        schedule, ledger = await schedule_of(config, switches)
        assert await soon(schedule) is True
        await ledger.spend(10)
        await ledger.settle()
        assert await soon(schedule) is None
        assert ledger.wait(10).seconds > 3500
        anew, ledger = await schedule_of(config, switches)
        assert await soon(anew) is None
        assert "10 of 12 containers in the last hour" in ledger.wait(10).why


async def test_the_cpu_time_of_a_start_is_earned_after_the_first_trial(config: Config) -> None:
    config = replace(config, budget=BudgetConfig(cpu_share=0.0001, containers_per_hour=1000))
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    assert ledger.wait(10).seconds == 0
    await ledger.spend(10)
    await ledger.settle()
    assert "CPU" in ledger.wait(10).why


async def test_a_reload_neither_refills_nor_forgets(config: Config) -> None:
    config = replace(config, budget=BudgetConfig(containers_per_hour=12))
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    await ledger.spend(10)
    await ledger.settle()
    ledger.adopt(replace(config, budget=BudgetConfig(containers_per_hour=15, cpu_share=1.0)))
    assert "10 of 15 containers" in ledger.wait(10).why
    assert "containers" not in ledger.wait(5).why  # there may be CPU time to earn: this process has many threads


async def test_an_unwritable_ledger_is_said_once_and_so_is_its_end(
    config: Config, tmp_path: Path, logs: list[Any]
) -> None:
    (tmp_path / "file").touch()
    config = replace(config, state=StateConfig(directory=str(tmp_path / "file")))
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    await ledger.spend(1)
    await ledger.settle()
    assert ledger.trouble.lasts
    (tmp_path / "file").unlink()
    await ledger.spend(1)
    await ledger.settle()
    assert not ledger.trouble.lasts
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("kickwatch.budget_unwritten", "warning"),
        ("kickwatch.budget_written", "info"),
    ]
    assert "a restart would forget what was spent" in logs[0]["what"]


async def test_a_guard_that_is_switched_off_by_a_reload_pauses_no_longer(config: Config) -> None:
    thresholds = GuardConfig(poll_s=0.1, containers=5, cpu_pressure_pct=0, load_per_cpu=0, io_pressure_pct=0)
    engine, told = AnEngine(), Told()
    engine.running_now = 6
    with Switches("") as switches:
        schedule, ledger = await schedule_of(replace(config, guard=thresholds), switches, told)
        assert await soon(schedule, engine) is None
        assert told.guards == [("containers",)]
        schedule = Schedule(config, ledger, switches, Notifier(), told)  # type: ignore[arg-type]
        assert await soon(schedule, engine) is True
    assert told.guards == [("containers",), ()]


async def test_a_ledger_that_is_written_again_says_so_once(config: Config, logs: list[Any]) -> None:
    directory = Path(config.state.directory)
    ledger = await BudgetLedger.open(config, History(directory))
    await ledger.spend(1)
    (directory / FILE).unlink()
    (directory / FILE).mkdir()
    await ledger.settle()
    await ledger.spend(1)
    (directory / FILE).rmdir()
    await ledger.settle()
    await ledger.spend(1)
    assert [log["event"] for log in logs] == ["kickwatch.budget_unwritten", "kickwatch.budget_written"]
    assert logs[0]["what"].startswith(f"{directory / FILE} cannot be written (")


@pytest.mark.parametrize(("history", "counted"), [("none", 0), ("damaged", 60)])
async def test_a_ledger_that_cannot_be_read_is_not_full(
    config: Config, logs: list[Any], history: str, counted: int
) -> None:
    """The history tells what was spent; where that cannot be read either, a full hour is assumed."""
    directory = Path(config.state.directory)
    (directory / FILE).mkdir(parents=True)
    if history == "damaged":
        (directory / "history.db").write_bytes(b"no database, and long enough" * 300)
    ledger = await BudgetLedger.open(replace(config, budget=BudgetConfig()), History(directory))
    assert (ledger.wait(1).seconds > 3000) == bool(counted)
    assert f"the budget counts {counted} containers" in logs[0]["what"]


async def test_the_guard_pauses_once_counts_the_time_and_resumes(config: Config, logs: list[Any]) -> None:
    guard = GuardConfig(
        poll_s=0.1, containers=5, resume_after_s=0.2, cpu_pressure_pct=0, load_per_cpu=0, io_pressure_pct=0
    )
    engine, told = AnEngine(), Told()
    with Switches("") as switches:
        schedule, _ = await schedule_of(replace(config, guard=guard), switches, told)
        engine.running_now = 6
        assert await soon(schedule, engine) is None
        engine.running_now = 1
        assert await soon(schedule, engine) is True
    assert [log["event"] for log in logs] == ["kickwatch.paused", "kickwatch.resumed"]
    assert logs[0]["reasons"] == ["containers"]
    assert logs[0]["what"] == "containers 6 (limit 5)"
    assert told.begun == [("containers",)]
    assert told.guards == [("containers",), ()]
    assert told.seconds == pytest.approx(logs[1]["paused_s"], abs=0.1)
    assert told.seconds > 0.4


async def test_a_pause_goes_on_through_a_reload(config: Config, logs: list[Any]) -> None:
    thresholds = GuardConfig(
        poll_s=0.1, containers=5, resume_after_s=0.1, cpu_pressure_pct=0, load_per_cpu=0, io_pressure_pct=0
    )
    config = replace(config, guard=thresholds)
    guard, engine, told = Guard(config.guard, config.budget.preset), AnEngine(), Told()
    engine.running_now = 6
    with Switches("") as switches:
        ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
        for _ in range(2):
            schedule = Schedule(config, ledger, switches, Notifier(), told, guard=guard)  # type: ignore[arg-type]
            assert await soon(schedule, engine) is None
        engine.running_now = 1
        assert await soon(schedule, engine) is True
    assert [log["event"] for log in logs] == ["kickwatch.paused", "kickwatch.resumed"]
    assert told.seconds == pytest.approx(logs[1]["paused_s"], abs=0.1)
    assert told.seconds > 0.9


async def test_before_there_is_a_rig_the_node_is_looked_at_too(config: Config, logs: list[Any]) -> None:
    full = GuardConfig(available_memory_pct=100.0, resume_after_s=0.0)  # no node has it all
    with Switches("") as switches:
        schedule, _ = await schedule_of(replace(config, guard=full), switches)
        assert "available memory" in await schedule.pressed()
        assert "available memory" in await schedule.pressed()
        calm, _ = await schedule_of(config, switches)
        assert await calm.pressed() == ""
    assert [log["event"] for log in logs] == ["kickwatch.paused"]


async def test_nodes_that_wait_for_the_same_budget_go_on_at_different_moments(config: Config) -> None:
    budget = BudgetConfig(containers_per_hour=12, cpu_share=1.0)
    config = replace(config, budget=budget, trial=TrialConfig(interval_s=0.0, jitter=0.5))
    loop, due = asyncio.get_running_loop(), []
    with Switches("") as switches:
        schedule, ledger = await schedule_of(config, switches)
        await ledger.spend(10)
        await ledger.settle()
        for _ in range(20):
            schedule.due_at = 0.0
            assert await schedule._held(make_rig()) is not None
            due.append(schedule.due_at - loop.time())
    assert min(due) >= ledger.wait(10).seconds - 1
    assert max(due) <= 1.5 * 3600
    assert max(due) - min(due) > 300


async def test_the_share_of_a_cpu_holds_in_any_hour(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle day is no credit for the hours after it; the clock and the CPU time are the test's."""
    clock = SimpleNamespace(now_s=1e6, cpu_s=0.0)
    monkeypatch.setattr(ledger_module, "own_cpu_s", lambda: clock.cpu_s)
    monkeypatch.setattr(BudgetLedger, "_now_s", lambda _: clock.now_s)
    config = replace(
        config, budget=BudgetConfig(cpu_share=0.01, containers_per_hour=100_000, containers_per_day=100_000)
    )
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    await ledger.spend(10)
    await ledger.settle()
    for _ in range(24 * 60):
        clock.now_s += 60.0
        assert ledger.wait(10).seconds == 0
    clock.cpu_s += 72.0  # 2 % of an hour
    assert ledger.wait(10).seconds == pytest.approx(3600, rel=0.05)
    clock.now_s += 3000.0
    assert "CPU" in ledger.wait(10).why
    clock.now_s += 4200.0
    assert ledger.wait(10).seconds == 0


async def test_the_first_trial_need_not_earn_its_cpu_time_and_the_warm_up_is_none(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=1e6, cpu_s=0.6)
    monkeypatch.setattr(ledger_module, "own_cpu_s", lambda: clock.cpu_s)
    monkeypatch.setattr(BudgetLedger, "_now_s", lambda _: clock.now_s)
    config = replace(config, budget=BudgetConfig(cpu_share=0.01))
    ledger = await BudgetLedger.open(config, History(Path(config.state.directory)))
    await ledger.spend(1)
    clock.now_s += 2.0
    await ledger.settle(1, warm_up=True)
    assert ledger.wait(10).seconds == 0
    await ledger.spend(10)
    await ledger.settle(10)
    assert "CPU" in ledger.wait(10).why


async def test_short_waits_for_cpu_time_do_not_spend_what_they_earn(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look costs what a share of 1 % earns in 0.4 s: after waits of 0.4 s no trial would ever begin."""
    clock = SimpleNamespace(now_s=1e6, cpu_s=0.0)
    monkeypatch.setattr(ledger_module, "own_cpu_s", lambda: clock.cpu_s)
    monkeypatch.setattr(BudgetLedger, "_now_s", lambda _: clock.now_s)
    config = replace(
        config, budget=BudgetConfig(cpu_share=0.01), trial=replace(config.trial, jitter=0.0), guard=GuardConfig()
    )
    with Switches(config.service.drain_file) as switches:
        schedule, ledger = await schedule_of(config, switches)
        await ledger.spend(10)
        await ledger.settle()
        clock.cpu_s = 0.1
        looks = 0
        while looks < 50:
            looks += 1
            schedule.due_at, clock.cpu_s = 0.0, clock.cpu_s + 0.004
            held = await schedule._held(make_rig())
            if held is None or "CPU" not in held[1]:
                break
            clock.now_s += held[0]
    assert looks < 5


async def test_what_another_share_allowed_is_not_owed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=1e6, cpu_s=0.0)
    monkeypatch.setattr(ledger_module, "own_cpu_s", lambda: clock.cpu_s)
    monkeypatch.setattr(BudgetLedger, "_now_s", lambda _: clock.now_s)
    stress = replace(config, budget=BudgetConfig(preset=Preset.STRESS))
    ledger = await BudgetLedger.open(stress, History(Path(config.state.directory)))
    await ledger.spend(10)
    await ledger.settle()
    clock.now_s, clock.cpu_s = clock.now_s + 3600.0, 720.0
    assert ledger.wait(10).seconds == 0
    ledger.adopt(replace(config, budget=BudgetConfig(containers_per_hour=1000)))
    assert ledger.wait(10).seconds == 0
