"""The budget across trials, reloads and restarts: charges on disk, CPU time, a file that cannot be read or written."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from fake_daemon import config_in
from kickwatch.configuration.types import BudgetConfig, Config, Preset, StateConfig
from kickwatch.history.history import History
from kickwatch.service.budget import FILE
from kickwatch.service.budget_ledger import BudgetLedger

HOURLY_12 = BudgetConfig(containers_per_hour=12, cpu_share=1.0)
NARROW_SHARE = BudgetConfig(cpu_share=0.01, containers_per_hour=100_000, containers_per_day=100_000)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured  # type: ignore[misc]


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now_s=1e6, cpu_s=0.0)


async def opened(config: Config, clock: SimpleNamespace | None = None, **budget: Any) -> BudgetLedger:
    config = replace(config, **budget) if budget else config
    history = History(Path(config.state.directory))
    clock = clock or SimpleNamespace(now_s=1e6, cpu_s=0.0)  # the CPU time of the tests' own process must not count
    return await BudgetLedger.open(config, history, lambda: clock.now_s, lambda: clock.cpu_s)


async def test_a_restart_does_not_refill_the_budget(config: Config) -> None:
    ledger = await opened(config, budget=HOURLY_12)
    await ledger.charge(10)
    await ledger.correct()
    assert ledger.wait(10).seconds > 3500
    assert "10 of 12 containers in the last hour" in (await opened(config, budget=HOURLY_12)).wait(10).why


async def test_a_daemon_that_dies_in_each_trial_is_charged_as_well(config: Config) -> None:
    await (await opened(config, budget=HOURLY_12)).charge(10)
    assert "10 of 12 containers" in (await opened(config, budget=HOURLY_12)).wait(10).why


async def test_only_what_actually_started_stays_charged(config: Config) -> None:
    ledger = await opened(config, budget=HOURLY_12)
    await ledger.charge(10)
    await ledger.correct(3)
    assert ledger.wait(9).seconds == 0
    assert "3 of 12 containers" in (await opened(config, budget=HOURLY_12)).wait(10).why


async def test_a_reload_neither_refills_nor_forgets(config: Config) -> None:
    ledger = await opened(config, budget=HOURLY_12)
    await ledger.charge(10)
    await ledger.correct()
    ledger.adopt(replace(config, budget=BudgetConfig(containers_per_hour=15, cpu_share=1.0)))
    assert "10 of 15 containers" in ledger.wait(10).why
    assert ledger.wait(5).seconds == 0


async def test_the_first_trial_does_not_wait_for_cpu_time_and_the_warm_up_is_not_the_first(
    config: Config, clock: SimpleNamespace
) -> None:
    clock.cpu_s = 0.6
    ledger = await opened(config, clock, budget=NARROW_SHARE)
    await ledger.charge(1)
    clock.now_s += 2.0
    await ledger.correct(1, warm_up=True)
    assert ledger.wait(10).seconds == 0
    await ledger.charge(10)
    await ledger.correct(10)
    assert "CPU" in ledger.wait(10).why


async def test_the_share_of_a_cpu_holds_in_any_hour(config: Config, clock: SimpleNamespace) -> None:
    """An idle day is no credit for the hours after it."""
    ledger = await opened(config, clock, budget=NARROW_SHARE)
    await ledger.charge(10)
    await ledger.correct()
    for _ in range(24 * 60):
        clock.now_s += 60.0
        assert ledger.wait(10).seconds == 0
    clock.cpu_s += 72.0  # 2 % of an hour
    assert ledger.wait(10).seconds == pytest.approx(3600, rel=0.05)
    clock.now_s += 3000.0
    assert "CPU" in ledger.wait(10).why
    clock.now_s += 4200.0
    assert ledger.wait(10).seconds == 0


async def test_cpu_time_that_another_share_allowed_is_not_owed(config: Config, clock: SimpleNamespace) -> None:
    ledger = await opened(config, clock, budget=BudgetConfig(preset=Preset.STRESS))
    await ledger.charge(10)
    await ledger.correct()
    clock.now_s, clock.cpu_s = clock.now_s + 3600.0, 720.0
    assert ledger.wait(10).seconds == 0
    ledger.adopt(replace(config, budget=BudgetConfig(containers_per_hour=1000)))
    assert ledger.wait(10).seconds == 0


async def test_a_file_that_cannot_be_written_is_logged_once_and_so_is_its_end(
    config: Config, tmp_path: Path, logs: list[Any]
) -> None:
    (tmp_path / "file").touch()
    ledger = await opened(config, state=StateConfig(directory=str(tmp_path / "file")))
    await ledger.charge(1)
    await ledger.correct()
    assert ledger.trouble.lasts
    (tmp_path / "file").unlink()
    await ledger.charge(1)
    await ledger.correct()
    assert not ledger.trouble.lasts
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("kickwatch.budget_unwritten", "warning"),
        ("kickwatch.budget_written", "info"),
    ]
    assert "a restart would forget" in logs[0]["what"]


async def test_a_file_that_becomes_unwritable_is_named(config: Config, logs: list[Any]) -> None:
    directory = Path(config.state.directory)
    ledger = await opened(config)
    await ledger.charge(1)
    (directory / FILE).unlink()
    (directory / FILE).mkdir()
    await ledger.correct()
    await ledger.charge(1)
    (directory / FILE).rmdir()
    await ledger.correct()
    await ledger.charge(1)
    assert [log["event"] for log in logs] == ["kickwatch.budget_unwritten", "kickwatch.budget_written"]
    assert logs[0]["what"].startswith(f"{directory / FILE} cannot be written (")


@pytest.mark.parametrize(("history", "charged"), [("none", 0), ("damaged", 60)])
async def test_a_file_that_cannot_be_read_is_not_an_empty_one(
    config: Config, logs: list[Any], history: str, charged: int
) -> None:
    """The history says what was charged; if that cannot be read either, a full hour is assumed."""
    directory = Path(config.state.directory)
    (directory / FILE).mkdir(parents=True)
    if history == "damaged":
        (directory / "history.db").write_bytes(b"no database, and long enough" * 300)
    ledger = await opened(config, budget=BudgetConfig())
    assert (ledger.wait(1).seconds > 3000) == bool(charged)
    assert f"the budget counts {charged} containers" in logs[0]["what"]
