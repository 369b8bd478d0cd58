"""Budgets: a limit of containers in any hour and any day, across restarts and clock changes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.configuration.limits import DAY_S, HOUR_S, Limits, check_budget, least_period_s, limits_of
from kickwatch.configuration.types import BudgetConfig, Config, Preset, TrialConfig, WorkloadConfig
from kickwatch.errors import ConfigError
from kickwatch.service.budget import FILE, Budget, Spent, jittered, load_spent, save_spent

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="feature: mounting needs root")
NOW_S = 1_780_000_000.0
SENTINEL, STRESS = BudgetConfig(), BudgetConfig(preset=Preset.STRESS)


def wait_s(budget: Budget, at_s: float, containers: int) -> float:
    """The wait, with no CPU time used."""
    return budget.wait_s(at_s, containers, 0.0, at_s).seconds


def most_within(spent: list[Spent], length_s: float) -> int:
    """Containers in the fullest half-open window of that length, tried at every end."""
    return max((sum(n for at_s, n in spent if end_s - length_s < at_s <= end_s) for end_s, _ in spent), default=0)


def test_presets_and_what_overrides_them() -> None:
    assert limits_of(SENTINEL) == Limits(60, 1440, 0.01)
    assert limits_of(STRESS) == Limits(None, None, None)
    assert limits_of(BudgetConfig(containers_per_day=200, cpu_share=0.5)) == Limits(60, 200, 0.5)
    assert limits_of(BudgetConfig(preset=Preset.STRESS, containers_per_hour=9)) == Limits(9, None, None)


def test_stress_never_waits() -> None:
    budget = Budget(STRESS)
    for second in range(1000):
        assert budget.wait_s(NOW_S + second, 10_000, 1e6, NOW_S) == (0.0, "")
        budget.charge(NOW_S + second, 10_000)


def test_two_trials_fit_into_an_hour_and_the_third_waits_for_the_first_to_leave_it() -> None:
    budget = Budget(SENTINEL)
    for at_s in (0.0, 100.0):
        assert budget.wait_s(NOW_S + at_s, 23, 0.0, NOW_S) == (0.0, "")
        budget.charge(NOW_S + at_s, 23)
    wait = budget.wait_s(NOW_S + 200.0, 23, 0.0, NOW_S)
    assert wait.seconds == HOUR_S - 200.0
    assert wait.why == "46 of 60 containers in the last hour, a trial needs 23"
    assert wait_s(budget, NOW_S + 200.0, 14) == 0.0
    assert wait_s(budget, NOW_S + HOUR_S - 1.0, 23) == 1.0
    assert wait_s(budget, NOW_S + HOUR_S, 23) == 0.0


def test_the_day_has_a_separate_limit() -> None:
    budget = Budget(BudgetConfig(containers_per_day=50))
    budget.charge(NOW_S, 23)
    budget.charge(NOW_S + 2 * HOUR_S, 23)
    wait = budget.wait_s(NOW_S + 4 * HOUR_S, 23, 0.0, NOW_S)
    assert wait.seconds == DAY_S - 4 * HOUR_S
    assert wait.why.startswith("46 of 50 containers in the last day")


def test_a_trial_counts_from_its_end_with_the_containers_it_started() -> None:
    budget = Budget(SENTINEL)
    budget.charge(NOW_S, 60)
    budget.correct(NOW_S + 50.0)
    assert wait_s(budget, NOW_S + 51.0, 1) == HOUR_S - 1.0
    budget = Budget(SENTINEL)
    budget.charge(NOW_S, 1)
    budget.charge(NOW_S, 59)
    budget.correct(NOW_S + 50.0, 4)  # the engine was lost after four
    budget.correct(NOW_S + 60.0, 0)  # no charge is open
    assert budget.spent == ((NOW_S, 1), (NOW_S + 50.0, 4))
    budget.correct(NOW_S + 2 * DAY_S)
    assert budget.spent == ()


def test_a_trial_that_takes_days_counts_from_its_end() -> None:
    budget = Budget(SENTINEL)
    budget.charge(NOW_S, 60)
    assert wait_s(budget, NOW_S + 2 * DAY_S, 1) == 0.0
    budget.correct(NOW_S + 2 * DAY_S)
    assert wait_s(budget, NOW_S + 2 * DAY_S, 1) == HOUR_S


def test_a_trial_waits_for_the_cpu_share() -> None:
    budget = Budget(SENTINEL)
    assert budget.wait_s(NOW_S + 100.0, 1, 1.0, NOW_S).seconds == 0.0
    wait = budget.wait_s(NOW_S + 100.0, 1, 1.5, NOW_S)
    assert wait.seconds == pytest.approx(50.0)
    assert wait.why == "1.5 s of CPU time in 100 s is more than 1 % of one CPU"


def test_the_longest_wait_counts() -> None:
    budget = Budget(SENTINEL, [(NOW_S, 60)])
    assert budget.wait_s(NOW_S + 10.0, 1, 0.2, NOW_S).why.startswith("60 of 60")
    assert budget.wait_s(NOW_S + 10.0, 1, 100.0, NOW_S).why.startswith("100.0 s of CPU time")


def test_a_trial_larger_than_a_budget_is_refused() -> None:
    large = Config(workload=WorkloadConfig(containers_per_trial=61))
    with pytest.raises(ConfigError) as raised:
        check_budget(large)
    assert str(raised.value) == (
        "workload.containers_per_trial = 61 exceeds budget.containers_per_hour = 60 (preset sentinel): "
        "set fewer containers per trial, or raise budget.containers_per_hour"
    )
    assert raised.value.exit_status == 2
    with pytest.raises(ConfigError, match=r"budget\.containers_per_day = 50:"):
        check_budget(
            Config(workload=large.workload, budget=BudgetConfig(containers_per_hour=61, containers_per_day=50))
        )
    with pytest.raises(ConfigError, match="exceeds"):
        Budget(SENTINEL).wait_s(NOW_S, 61, 0.0, NOW_S)
    check_budget(Config(workload=WorkloadConfig(containers_per_trial=60)))
    check_budget(Config(workload=WorkloadConfig(containers_per_trial=61, enabled=False)))  # passive: starts none
    check_budget(Config(workload=large.workload, budget=STRESS))
    check_budget(Config())


def test_jitter_adds_its_share_at_most() -> None:
    assert jittered(60.0, 0.2, 0.0) == 60.0
    assert jittered(60.0, 0.2, 0.5) == pytest.approx(66.0)
    assert jittered(60.0, 0.2, 0.999999) < 72.0
    assert jittered(60.0, 0.0, 0.7) == 60.0


def test_the_period_is_the_longest_of_all_limits() -> None:
    trial, workload = TrialConfig(interval_s=60.0, window_s=5.0), WorkloadConfig(containers_per_trial=23)
    assert least_period_s(Config(trial=trial, workload=workload, budget=STRESS)) == 70.0
    assert least_period_s(Config(trial=trial, workload=workload)) == 23 * 60.0


gaps = st.lists(st.tuples(st.floats(0, 3 * HOUR_S), st.integers(0, 40), st.floats(0, 600)), max_size=60)
limited = st.builds(
    BudgetConfig,
    preset=st.sampled_from(Preset),
    containers_per_hour=st.integers(40, 200),
    containers_per_day=st.integers(40, 1000),
    cpu_share=st.just(1.0),
)


@given(gaps, limited, st.data())
def test_no_hour_and_no_day_exceeds_its_limit(
    plan: list[tuple[float, int, float]], config: BudgetConfig, data: st.DataObject
) -> None:
    """Trials as soon as they may begin, some corrected and some killed, with restarts between them."""
    budget, now_s, kept = Budget(config), NOW_S, list[Spent]()
    for gap_s, containers, length_s in plan:
        now_s += gap_s
        if data.draw(st.booleans()):
            budget = Budget(config, budget.spent)
        while (wait := budget.wait_s(now_s, containers, 0.0, now_s)).seconds > 0.0:
            assert wait.why
            assert wait.seconds <= DAY_S
            now_s += max(wait.seconds, 1e-3)
        budget.charge(now_s, containers)
        if data.draw(st.booleans()):
            now_s += length_s
            budget.correct(now_s)
        kept.append((now_s, containers))
    assert most_within(kept, HOUR_S) <= config.containers_per_hour
    assert most_within(kept, DAY_S) <= config.containers_per_day


@given(gaps, limited, st.integers(0, 40))
def test_a_wait_is_no_longer_than_necessary(
    plan: list[tuple[float, int, float]], config: BudgetConfig, containers: int
) -> None:
    times = accumulate((gap_s for gap_s, _, _ in plan), initial=NOW_S)
    spent = [(at_s, count) for at_s, (_, count, _) in zip(times, plan, strict=False)]
    now_s = spent[-1][0] if spent else NOW_S
    seconds = wait_s(Budget(config, spent), now_s, containers)
    if seconds > 1.0:
        sooner_s = now_s + seconds - 1.0
        windows = ((HOUR_S, config.containers_per_hour), (DAY_S, config.containers_per_day))
        within = [sum(n for at_s, n in spent if at_s + length_s > sooner_s) for length_s, _ in windows]
        assert any(count + containers > most for count, (_, most) in zip(within, windows, strict=True))


@given(gaps, st.floats(0, 20 * 365 * DAY_S), st.booleans())
def test_a_clock_set_back_grants_nothing_and_blocks_no_longer_than_a_window(
    plan: list[tuple[float, int, float]], back_s: float, restarted: bool
) -> None:
    config = BudgetConfig(containers_per_hour=40, containers_per_day=400)
    budget, now_s = Budget(config), NOW_S
    for gap_s, containers, _ in plan:
        now_s += gap_s / 10
        now_s += wait_s(budget, now_s, containers) + 1e-3
        budget.charge(now_s, containers)
    before_s = wait_s(Budget(config, budget.spent), now_s, 40)
    budget = Budget(config, budget.spent) if restarted else budget
    after_s = wait_s(budget, now_s - back_s, 40)
    assert before_s - 1e-3 <= after_s <= DAY_S
    settled_s = now_s - back_s + after_s + 1e-3
    assert wait_s(budget, settled_s, 40) <= 1e-3


def test_a_trial_during_which_the_clock_is_set_back_returns_only_its_own_containers() -> None:
    budget = Budget(SENTINEL)
    budget.charge(NOW_S - 10.0, 30)
    budget.charge(NOW_S, 23)
    budget.correct(NOW_S - 1000.0, 3)
    assert budget.spent == ((NOW_S - 1000.0, 33),)


def test_a_clock_set_back_does_not_prolong_the_wait_for_cpu_time() -> None:
    assert Budget(SENTINEL).wait_s(NOW_S - 1e6, 1, 2.0, NOW_S).seconds == pytest.approx(200.0)


def test_charges_outlive_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "state" / FILE
    assert load_spent(path) is None
    budget = Budget(SENTINEL)
    budget.charge(NOW_S, 1)
    budget.charge(NOW_S + 5.0, 46)
    assert save_spent(path, budget.spent) == ""
    again = Budget(SENTINEL, load_spent(path) or ())
    assert again.spent == budget.spent
    assert wait_s(again, NOW_S + 10.0, 23) == HOUR_S - 5.0
    assert [file.name for file in path.parent.iterdir()] == [FILE]


def test_a_daemon_killed_in_every_trial_stays_within_its_budget(tmp_path: Path) -> None:
    path, started = tmp_path / FILE, 0
    for attempt in range(100):  # a restart every 10 s
        at_s = NOW_S + 10.0 * attempt
        budget = Budget(SENTINEL, load_spent(path) or ())
        if wait_s(budget, at_s, 24) == 0.0:
            budget.charge(at_s, 24)
            save_spent(path, budget.spent)
            started += 24
    assert started == 48


@pytest.mark.parametrize(
    "text", [b"", b"[[1.0, 2]", b"{}", b"[[1e999, 2]]", b"[[1.0, -2]]", b'[["x", 2]]', b"\xff\0", b"[[1.0, 2.5]]"]
)
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(text)
    assert load_spent(path) is None
    assert save_spent(path, [(NOW_S, 3)]) == ""
    assert load_spent(path) == ((NOW_S, 3),)


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = save_spent(tmp_path / "file" / FILE, [])
    assert str(tmp_path / "file" / FILE) in error
    assert "restart" in error


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system; `fill` leaves no free byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@needs_root
def test_a_daemon_killed_in_every_trial_stays_within_its_budget_on_a_full_disk(full_disk: Path) -> None:
    path, started = full_disk / FILE, 0
    assert save_spent(path, [(NOW_S - 10.0, 1)]) == ""
    fill(full_disk)
    for attempt in range(20):
        at_s = NOW_S + 10.0 * attempt
        budget = Budget(SENTINEL, load_spent(path) or ())
        if wait_s(budget, at_s, 24) == 0.0:
            budget.charge(at_s, 24)
            assert save_spent(path, budget.spent) == ""
            started += 24
    assert started == 48
    assert save_spent(path, [(NOW_S, 7)]) == ""  # shorter than what was there
    assert load_spent(path) == ((NOW_S, 7),)
    assert sorted(file.name for file in full_disk.iterdir()) == ["filler", FILE]


@needs_root
def test_what_does_not_fit_on_a_full_disk_is_reported_and_the_file_stays(full_disk: Path) -> None:
    path = full_disk / FILE
    assert save_spent(path, [(NOW_S, 1)]) == ""
    fill(full_disk)
    assert "No space left" in save_spent(path, [(NOW_S + number, 1) for number in range(1000)])
    assert load_spent(path) == ((NOW_S, 1),)


def test_an_unreadable_file_is_an_error_and_not_an_empty_budget(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(IsADirectoryError):
        load_spent(tmp_path / FILE)


def test_only_the_last_day_is_kept() -> None:
    budget = Budget(STRESS)
    for number in range(3000):
        budget.charge(NOW_S + 60.0 * number, 23)
    assert len(budget.spent) == DAY_S / 60.0
