"""The study: its laws are right, its bounds hold, and its figures depend only on the seed."""

# ruff: noqa: S311 - random numbers of a study, no secrets

import json
from collections import Counter
from itertools import chain, islice
from random import Random
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from kickwatch.detect.pairs import PairWager
from kickwatch.detect.simulate import run_simulation, study, to_json
from kickwatch.detect.simulate.bounds import mean_lower, mean_upper, quantile, quantile_bounds
from kickwatch.detect.simulate.command import simulate
from kickwatch.detect.simulate.healthy import HEALTHY, containers_to_quiet, share_unknown
from kickwatch.detect.simulate.importance import RARE_ERRORS, RARE_NULLS, alarm_weight
from kickwatch.detect.simulate.laws import draws, poisson, poisson_masses, two_point
from kickwatch.detect.simulate.nulls import NULLS, Scenario
from kickwatch.detect.simulate.outside import OUTSIDE
from kickwatch.detect.simulate.pair_effects import PairEffect
from kickwatch.detect.simulate.pair_nulls import PAIR_NULLS, PairScenario
from kickwatch.detect.simulate.plot import to_svg
from kickwatch.detect.simulate.report import to_text
from kickwatch.detect.simulate.study import SimulationResult
from kickwatch.detect.simulate.tasks import THRESHOLD, Task, TaskKind, run_task
from kickwatch.detect.wager import NINE

# Each kind of work once, small enough for a unit test.
TINY = (
    (TaskKind.NULL, 50.0, 8, 2),
    (TaskKind.OUTSIDE, 50.0, 4, 1),
    (TaskKind.EFFECT, THRESHOLD, 20, 2),
    (TaskKind.WITHOUT_CLIP, THRESHOLD, 5, 1),
    (TaskKind.OTHER, THRESHOLD, 3, 1),
    (TaskKind.RARE_NULL, THRESHOLD, 4, 1),
    (TaskKind.RARE_ERROR, THRESHOLD, 20, 1),
    (TaskKind.RECOVERY, THRESHOLD, 3, 1),
    (TaskKind.START, THRESHOLD, 2, 1),
    (TaskKind.UNKNOWN, THRESHOLD, 1, 1),
    (TaskKind.PAIR_NULL, 20.0, 2, 1),
    (TaskKind.PAIR_EFFECT, THRESHOLD, 3, 1),
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "QUICK", TINY)


@pytest.fixture
def result(tiny: None) -> SimulationResult:
    return run_simulation(quick=True, seed=3, jobs=1)


@pytest.mark.parametrize("scenario", [s for s in NULLS if s.name.startswith("attributed")], ids=lambda s: s.name)
def test_the_nulls_keep_their_promise_on_average(scenario: Scenario) -> None:
    xs = [min(x, 4.0) for x in islice(scenario.source(Random(2)), 200_000)]
    assert sum(xs) / len(xs) < 0.05 * 1.03


@pytest.mark.parametrize("scenario", [*NULLS, *OUTSIDE], ids=lambda s: s.name)
def test_streams_do_not_end_and_are_observations(scenario: Scenario) -> None:
    assert all(x >= 0.0 for x in islice(scenario.source(Random(1)), 5000))


def test_the_law_of_poisson() -> None:
    masses = poisson_masses(4.77)
    assert sum(masses.values()) == pytest.approx(1.0, abs=1e-12)
    assert sum(k * mass for k, mass in masses.items()) == pytest.approx(4.77)
    xs = list(islice(draws(poisson(4.77), Random(1)), 20_000))
    assert sum(xs) / len(xs) == pytest.approx(4.77, abs=0.06)


def test_bounds_of_a_mean_hold_as_often_as_they_say() -> None:
    low = high = 0
    for seed in range(100):
        xs = list(islice(draws(two_point(1.0, 0.3), Random(seed)), 60))
        lower, upper = mean_lower(xs, 1.0), mean_upper(xs, 1.0)
        assert lower < sum(xs) / 60 < upper
        low += lower > 0.3
        high += upper < 0.3
    assert low <= 5
    assert high <= 5


def test_bounds_of_a_quantile_are_the_binomial_ones() -> None:
    ordered = list(range(1, 101))
    assert quantile(ordered, 0.5) == 50
    assert quantile(ordered, 0.95) == 95
    assert quantile_bounds(ordered, 0.5) == (40, 61)
    low, high = quantile_bounds(ordered, 0.95)
    assert low == 90
    assert high == 100


def test_a_weight_is_at_most_horizon_over_threshold() -> None:
    weights = [alarm_weight(RARE_NULLS[0], THRESHOLD, 100, Random(seed)) for seed in range(50)]
    assert 0.0 < max(weights) <= 100 / THRESHOLD


def test_rare_nulls_are_at_the_edge_and_errors_within_the_null() -> None:
    """At the edge, the factor of every bet has a mean of 1; within the null, of at most 1."""
    for rare in (*RARE_NULLS, *RARE_ERRORS):
        assert sum(rare.masses.values()) == pytest.approx(1.0)
        rows = [(mass, rare.wager().factors(x)) for x, mass in rare.masses.items()]
        means = [sum(mass * factors[bet] for mass, factors in rows) for bet in range(NINE)]
        assert max(means) <= 1.0 + 1e-9
        if rare in RARE_NULLS:
            assert means == pytest.approx([1.0] * NINE, rel=1e-5)


@pytest.mark.parametrize("scenario", PAIR_NULLS, ids=lambda s: s.name)
def test_pairs_of_healthy_nodes_take_money_from_every_bet(scenario: PairScenario) -> None:
    """Or leave it as it is: the mean factor of each bet, within what chance does in 200,000 pairs."""
    differences = Counter(chain.from_iterable(islice(scenario.node.trials(Random(7)), 50_000)))
    wager = PairWager(scenario.allowed)
    for bet in range(NINE):
        mean = sum(wager.factors(x)[bet] * count for x, count in differences.items()) / differences.total()
        assert mean < 1.0 + 4.5 / 200_000**0.5


@pytest.mark.parametrize(
    ("effect", "containers"),
    [(PairEffect(1.0, "exact", 0.0, one_run=True), 20), (PairEffect(1.0, "exact", 0.0, one_run=False), 34)],
)
def test_a_broadcast_with_each_container_takes_as_many_containers(effect: PairEffect, containers: int) -> None:
    assert effect.containers()(Random(1)) == containers


def test_importance_sampling_agrees_with_plain_runs() -> None:
    """At a threshold that both reach: the rate of false alarms over the first 400 observations."""
    rare, scenario = RARE_NULLS[0], NULLS[0]
    weights = [alarm_weight(rare, 100.0, 400, Random(seed)) for seed in range(600)]
    runs = run_task(Task(TaskKind.NULL, 0, 100.0, 600, 0, 1))
    plain = sum(run <= 400 for run in runs) / len(runs)
    assert scenario.name == rare.name
    assert sum(weights) / len(weights) == pytest.approx(plain, abs=0.1)


def test_figures_depend_on_the_seed_and_not_on_the_processes(tiny: None, result: SimulationResult) -> None:
    assert run_simulation(quick=True, seed=3, jobs=2) == result
    assert run_simulation(quick=True, seed=4, jobs=1) != result


def test_progress_counts_to_the_end(tiny: None) -> None:
    seen: list[tuple[int, int]] = []
    run_simulation(quick=True, seed=3, progress=lambda done, total: seen.append((done, total)), jobs=1)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_json_has_the_agreed_shape(result: SimulationResult) -> None:
    decoded = json.loads(to_json(result))
    assert set(decoded) == {"nulls", "effects", "quiet", "pairs"}
    keys = {"broadcasts_per_container", "background", "law", "one_run", "allowed", "median", "p95"}
    assert {frozenset(pairs) for pairs in decoded["pairs"]} == {frozenset(keys)}
    assert {null.name for null in PAIR_NULLS} <= {null["name"] for null in decoded["nulls"]}
    assert {frozenset(null) for null in decoded["nulls"]} == {
        frozenset({"name", "threshold", "arl_bound", "arl_lower95"})
    }
    assert {frozenset(effect) for effect in decoded["effects"]} == {
        frozenset({"broadcasts_per_container", "allowance", "law", "median", "p95"})
    }
    promised = {(1.0, 0.05, "exact"), (1.0, 0.05, "poisson"), (0.5, 0.05, "poisson")}
    promised |= {(4.77, 0.001, "poisson"), (32.0, 0.001, "exact"), (5.0, 0.05, "exact")}
    assert promised <= {(e["broadcasts_per_container"], e["allowance"], e["law"]) for e in decoded["effects"]}
    words = " ".join(null["name"] for null in decoded["nulls"])
    for kind in ("bursty", "heavy-tailed", "day and night", "drifting", "autocorrelated", "mislabelled", "stalls"):
        assert kind in words


def test_text_and_picture_name_everything(result: SimulationResult) -> None:
    text, picture = to_text(result), ElementTree.fromstring(to_svg(result))  # noqa: S314 - our own picture
    words = " ".join(picture.itertext())
    for null in (*result.nulls, *result.pair_nulls):
        assert null.name in text
        assert null.name in words
    for name in (
        "Outside the promise",
        "without clipping",
        "Wrong verdicts",
        "Recovery",
        "share of time",
        "no allowance",
    ):
        assert name in text


def test_the_command_prints_json_and_draws(tiny: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    picture = tmp_path_factory.mktemp("plot") / "study.svg"
    done = CliRunner().invoke(simulate, ["--quick", "--json", "--jobs", "1", "--plot", str(picture)])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)) == {"nulls", "effects", "quiet", "pairs"}
    assert picture.read_text().startswith("<svg")


def test_a_node_that_never_broadcasts_is_quiet_after_one_trial_and_stays_so() -> None:
    healthy = HEALTHY[0]
    assert containers_to_quiet(healthy, Random(1)) == 23
    assert share_unknown(healthy, Random(1)) == 0.0


def test_stray_broadcasts_cost_a_healthy_node_little_of_its_quiet() -> None:
    rare = next(node for node in HEALTHY if node.stray == 0.01)
    assert share_unknown(rare, Random(1)) < 0.05
