"""This node against itself: a cost that an update raised is found; strata that only differ are not compared."""

# ruff: noqa: S311 - random numbers of a study, no secrets

from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest
from msgspec.structs import replace

from builders import RCU, TLB, window
from kickwatch.detect import comparison as comparison_module
from kickwatch.detect.comparison import ENOUGH_TRIALS, FOLD_AT, LEAST_SWEEPS, MOST_PAST, Comparer, Comparison
from kickwatch.detect.monitor import Monitor
from kickwatch.detect.simulate.nulls import overdispersed
from kickwatch.detect.state import ChangeKind
from kickwatch.detect.strata import stratum_of
from kickwatch.model import AlarmKind, Cell, Trial, Verdict
from watching import PACE, changes, serial, watched

RCU_NAME, TLB_NAME = "rcu_exp_handler rcu other", "flush_tlb_func mm-user other"
THRESHOLD = 1e11


def costing(kernel: str, times: float, seed: int, *more: Cell, **node: object) -> Iterator[Trial]:
    """Noisy trials under this kernel that cost `times` as much as usual: 7 and 10 sweeps per container."""
    rcu, tlb = overdispersed(200.0 * times)(Random(seed)), overdispersed(300.0 * times)(Random(seed + 1))
    while True:
        cells = (replace(RCU, requests=round(next(rcu))), replace(TLB, requests=round(next(tlb))))
        one = serial(0, churn=window("churn", *cells, *more), quiet=window("quiet"))
        yield replace(one, node=replace(one.node, kernel=kernel, **node))


def test_a_doubling_across_a_kernel_update_is_the_relative_finding_alone() -> None:
    monitor = Monitor(PACE)
    state, outcomes = watched(monitor, islice(costing("6.1.0", 1.0, 1), 500))
    assert not changes(outcomes)
    state, outcomes = watched(monitor, islice(costing("6.12.0", 2.0, 3), 250), state)
    changed = changes(outcomes)
    assert {change.alarm for change in changed} == {AlarmKind.REGRESSED}
    assert [change.kind for change in changed] == [ChangeKind.RAISED, ChangeKind.JOINED]
    assert {change.stream for change in changed} == {RCU_NAME, TLB_NAME}
    assert "changed: kernel 6.12.0 (before: 6.1.0)" in changed[0].text
    assert outcomes[-1].verdict is Verdict.QUIET
    assert outcomes[-1].findings == ("regressed",)
    _, outcomes = watched(monitor, islice(costing("6.12.0", 1.0, 5), 600), state)
    assert [change.kind for change in changes(outcomes)] == [ChangeKind.LEFT, ChangeKind.ENDED]


@pytest.mark.parametrize("times", [1.0, 0.3, 1.1])
def test_an_update_that_changes_little_raises_nothing(times: float) -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 500))
    _, outcomes = watched(monitor, islice(costing("6.12.0", times, 3), 2000), state)
    assert not changes(outcomes)


@pytest.mark.parametrize("node", [{"network": "bridge"}, {"cpus_online": 8}, {"arch": "aarch64"}])
def test_other_strata_are_not_compared(node: dict[str, object]) -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 500))
    _, outcomes = watched(monitor, islice(costing("6.1.0", 9.0, 3, **node), 300), state)
    assert not changes(outcomes)


def test_an_engine_update_is_compared() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 500))
    _, outcomes = watched(monitor, islice(costing("6.1.0", 3.0, 3, engine="docker 28.5"), 130), state)
    assert "changed: engine docker 28.5 (before: docker 20.10.24)" in changes(outcomes)[0].text


def test_a_cell_that_the_record_does_not_have_is_watched_from_the_next_trial_on() -> None:
    new = replace(RCU, reason="do_sync_core", func="do_sync_core", requests=60)  # 2 sweeps per container
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 500))
    state, _ = watched(monitor, islice(costing("6.12.0", 1.0, 3, new), 1), state)
    assert state.comparison is not None
    (rule,) = [rule for rule in state.comparison.rules if rule.cell.startswith("do_sync_core")]
    assert rule.track is not None
    assert rule.track.watched.alarm.steps == 0
    _, outcomes = watched(monitor, islice(costing("6.12.0", 1.0, 4, new), 60), state)
    (change,) = changes(outcomes)
    assert "2 requests per container and other CPU" in change.text
    assert "; before: 0, allowed: " in change.text


def test_a_cell_that_costs_little_is_not_watched() -> None:
    new = replace(RCU, reason="do_sync_core", func="do_sync_core", requests=6)  # 0.2 sweeps per container
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 2000))
    state, outcomes = watched(monitor, islice(costing("6.12.0", 1.0, 3, new), 1000), state)
    assert not changes(outcomes)
    assert state.comparison is not None
    assert len(state.comparison.rules) == 2


def test_a_record_that_is_too_short_raises_no_alarm() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 40))
    _, outcomes = watched(monitor, islice(costing("6.12.0", 5.0, 3), 300), state)
    assert not changes(outcomes)


def test_an_hour_under_another_kernel_gives_no_yardstick() -> None:
    """A kernel that ran for an hour is no yardstick while there is a longer record."""
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), ENOUGH_TRIALS + 100))
    state, _ = watched(monitor, islice(costing("6.9.0", 1.0, 1), 50), state)
    state, _ = watched(monitor, islice(costing("6.12.0", 1.0, 1), 1), state)
    assert state.comparison is not None
    assert state.comparison.against is not None
    assert state.comparison.against.kernel == "6.1.0"


def test_an_old_kernel_that_returns_continues_its_record() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 300))
    state, _ = watched(monitor, islice(costing("6.12.0", 1.0, 1), 250), state)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 10), state)
    assert state.comparison is not None
    assert state.comparison.record.trials + len(state.comparison.pending) == 310
    assert state.comparison.against is not None
    assert state.comparison.against.kernel == "6.12.0"


def test_a_reboot_keeps_the_record_and_restarts_the_evidence() -> None:
    monitor = Monitor(PACE)
    state, _ = watched(monitor, islice(costing("6.1.0", 1.0, 1), 300))
    state, _ = watched(monitor, islice(costing("6.12.0", 2.0, 1), 30), state)
    assert state.comparison is not None
    before = state.comparison
    state, _ = watched(monitor, islice(costing("6.12.0", 2.0, 1, boot_id="b"), 1), state)
    assert state.comparison is not None
    assert [rule.null for rule in state.comparison.rules] == [rule.null for rule in before.rules]
    assert {rule.track.watched.alarm.steps for rule in state.comparison.rules if rule.track} == {1}
    assert len(state.comparison.pending) == len(before.pending) + 1


def stepped(comparer: Comparer, comparison: Comparison, *sweeps: dict[str, float]) -> Comparison:
    for number, one in enumerate(sweeps):
        comparison, _ = comparer.step(comparison, f"t{number}", one)
    return comparison


def test_adding_trials_to_the_record_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(1)
    cells = ["a", "b", "c"]
    sweeps = [{cell: random.random() for cell in cells if random.random() < 0.5} for _ in range(3 * FOLD_AT)]
    comparer, stratum = Comparer(THRESHOLD), stratum_of(serial())
    many = stepped(comparer, comparer.enter(None, stratum), *sweeps)
    monkeypatch.setattr(comparison_module, "FOLD_AT", 1)
    single = stepped(comparer, comparer.enter(None, stratum), *sweeps)
    assert many == single
    assert many.record.trials == 3 * FOLD_AT
    assert {record.burnt + record.observations for record in many.record.cells.values()} == {3 * FOLD_AT}


def test_records_and_rules_are_bounded() -> None:
    comparer = Comparer(THRESHOLD)
    crowd = {f"cell {number}": 5.0 for number in range(500)}
    comparison = stepped(comparer, comparer.enter(None, stratum_of(serial())), *[crowd] * 200)
    comparison = comparer.enter(comparison, replace(stratum_of(serial()), kernel="next"))
    assert len(comparison.past[0].cells) == comparison_module.MOST_CELLS
    assert len(comparison.rules) == comparison_module.MOST_RULES
    comparison = stepped(comparer, comparison, {f"new {number}": 5.0 for number in range(500)})
    assert len(comparison.rules) == comparison_module.MOST_RULES
    for number in range(9):
        comparison = stepped(comparer, comparison, {"a": 1.0})
        comparison = comparer.enter(comparison, replace(stratum_of(serial()), kernel=f"k{number}"))
    assert len(comparison.past) == MOST_PAST


def test_a_full_record_says_nothing_about_a_cell_it_lacks() -> None:
    comparer = Comparer(THRESHOLD)
    crowd = {f"cell {number:03}": 0.01 for number in range(comparison_module.MOST_CELLS)}
    comparison = stepped(comparer, comparer.enter(None, stratum_of(serial())), *[crowd] * 300)
    comparison = comparer.enter(comparison, replace(stratum_of(serial()), kernel="next"))
    comparison = stepped(comparer, comparison, {"new": 50.0})
    (rule,) = comparison.rules
    assert rule.null is None
    assert stepped(comparer, comparison, *[{"new": 50.0}] * 300).rules == (rule,)


def test_no_rule_is_stricter_than_the_least_harmful_rise() -> None:
    comparer = Comparer(THRESHOLD)
    comparison = stepped(comparer, comparer.enter(None, stratum_of(serial())), *[{"a": 0.26}] * 5000)
    comparison = comparer.enter(comparison, replace(stratum_of(serial()), kernel="next"))
    comparison = stepped(comparer, comparison, {"b": 9.0})
    assert all(rule.null and rule.null.mean >= LEAST_SWEEPS for rule in comparison.rules)
