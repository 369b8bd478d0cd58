"""The whole study: its runs, spread over the CPUs, and the results."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from os import sched_getaffinity

import msgspec

from kickwatch.detect.oneshot import ALPHA
from kickwatch.detect.pairs import DIFFERENT_SHARE
from kickwatch.detect.simulate.bounds import mean_lower, mean_upper, quantile, quantile_bounds
from kickwatch.detect.simulate.effects import EFFECTS, OTHERS, RECOVERIES, STEADY_MEANS, WITHOUT_CLIP, Effect
from kickwatch.detect.simulate.healthy import HEALTHY
from kickwatch.detect.simulate.importance import RARE_ERRORS, RARE_NULLS
from kickwatch.detect.simulate.nulls import NULLS, Scenario
from kickwatch.detect.simulate.outside import OUTSIDE
from kickwatch.detect.simulate.pair_effects import PAIR_EFFECTS, PairEffect
from kickwatch.detect.simulate.pair_nulls import PAIR_NULLS, PairScenario
from kickwatch.detect.simulate.tasks import HORIZONS, RARE_HORIZON, SCENARIOS, THRESHOLD, Task, TaskKind, run_task

WORST_WEIGHT = 1.001 * ALPHA  # of a wrong verdict: at most alpha but for rounding
Samples = dict[tuple[TaskKind, int, float], list[float]]


class NullResult(msgspec.Struct, frozen=True):
    """Run length to a false alarm under a null, in observations; `method`: how it was found."""

    name: str
    threshold: float
    arl_bound: float
    arl_mean: float
    arl_lower95: float
    runs: int
    method: str


class DelayResult(msgspec.Struct, frozen=True):
    """Observations to an alarm or a recovery, with 95 % bounds of both quantiles."""

    name: str
    median: int
    median_bounds: tuple[int, int]
    p95: int
    p95_bounds: tuple[int, int]
    runs: int


class EffectResult(msgspec.Struct, frozen=True):
    """The delay under an effect on the creation path."""

    effect: Effect
    delay: DelayResult


class PairDelayResult(msgspec.Struct, frozen=True):
    """Containers until the pairs prove a fault."""

    effect: PairEffect
    delay: DelayResult


class ErrorResult(msgspec.Struct, frozen=True):
    """Probability of a wrong verdict of `kickwatch trial`."""

    name: str
    bound: float
    estimate: float
    upper95: float


class SteadyResult(msgspec.Struct, frozen=True):
    """Changes of the alarm under a constant mean: more than one is flapping."""

    mean: float
    runs: int
    changes_mean: float
    changes_max: int


class QuietResult(msgspec.Struct, frozen=True):
    """The cost of `quiet` on a healthy node: containers until it is established, and the share of time it is lost."""

    name: str
    start: DelayResult | None
    unknown_mean: float
    unknown_upper95: float


class SimulationResult(msgspec.Struct, frozen=True):
    """Everything that was measured. Run lengths under `pair_nulls` are trials, of four pairs each."""

    quick: bool
    seed: int
    nulls: tuple[NullResult, ...]
    outside: tuple[NullResult, ...]
    effects: tuple[EffectResult, ...]
    without_clip: tuple[EffectResult, ...]
    others: tuple[DelayResult, ...]
    errors: tuple[ErrorResult, ...]
    recoveries: tuple[DelayResult, ...]
    steady: tuple[SteadyResult, ...]
    quiet_node: tuple[QuietResult, ...]
    pair_nulls: tuple[NullResult, ...]
    pair_delays: tuple[PairDelayResult, ...]


# (kind, threshold, runs, tasks into which they are cut): the quick study takes at most 50 s on two busy CPUs, the full
# one ten minutes.
QUICK = (
    (TaskKind.NULL, 1e3, 200, 4),
    (TaskKind.EFFECT, THRESHOLD, 2000, 1),
    (TaskKind.RARE_NULL, THRESHOLD, 400, 4),
    (TaskKind.PAIR_NULL, 1e3, 16, 1),
    (TaskKind.PAIR_EFFECT, THRESHOLD, 200, 1),
)
FULL = (
    (TaskKind.NULL, 1e3, 500, 4),
    (TaskKind.NULL, 1e4, 200, 10),
    (TaskKind.NULL, 1e5, 50, 25),
    (TaskKind.OUTSIDE, 1e4, 100, 4),
    (TaskKind.EFFECT, THRESHOLD, 20_000, 4),
    (TaskKind.WITHOUT_CLIP, THRESHOLD, 20_000, 1),
    (TaskKind.OTHER, THRESHOLD, 2000, 2),
    (TaskKind.RARE_NULL, THRESHOLD, 4000, 16),
    (TaskKind.RARE_ERROR, THRESHOLD, 20_000, 4),
    (TaskKind.RECOVERY, THRESHOLD, 1000, 2),
    (TaskKind.STEADY, THRESHOLD, 10, 5),
    (TaskKind.START, THRESHOLD, 200, 1),
    (TaskKind.UNKNOWN, THRESHOLD, 400, 4),
    (TaskKind.PAIR_NULL, 1e3, 100, 4),
    (TaskKind.PAIR_EFFECT, THRESHOLD, 2000, 2),
)


def run_simulation(
    quick: bool = False, seed: int = 1, progress: Callable[[int, int], None] | None = None, jobs: int | None = None
) -> SimulationResult:
    """Measure everything. The result depends on `seed`, and not on `jobs` (default: the CPUs it may use).

    `progress` is called with the number of finished tasks and the number of all tasks.
    """
    tasks = list(_plan(QUICK if quick else FULL, seed))
    samples: Samples = {}
    found: dict[Task, list[float]] = {}
    for task, values in _run(tasks, jobs or len(sched_getaffinity(0))):
        found[task] = values
        if progress:
            progress(len(found), len(tasks))
    for task in tasks:
        samples.setdefault((task.kind, task.index, task.threshold), []).extend(found[task])
    return _conclude(samples, quick, seed)


def _plan(plan: Iterable[tuple[TaskKind, float, int, int]], seed: int) -> Iterable[Task]:
    for kind, threshold, runs, pieces in plan:
        for index, scenario in enumerate(SCENARIOS[kind]):
            effort = 1
            if isinstance(scenario, Scenario):
                if threshold > scenario.highest_threshold:
                    continue
                effort = scenario.effort
            effort = scenario.effort if isinstance(scenario, PairScenario) else effort
            for chunk in range(pieces):
                yield Task(kind, index, threshold, effort * runs // pieces, chunk, seed)


def _run(tasks: list[Task], jobs: int) -> Iterable[tuple[Task, list[float]]]:
    if jobs == 1:
        yield from ((task, run_task(task)) for task in tasks)
        return
    # spawn: a fork would copy the locks that threads of the caller hold
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_task, task): task for task in sorted(tasks, key=lambda task: -task.threshold)}
        for future in as_completed(running):
            yield running[future], future.result()


def _conclude(samples: Samples, quick: bool, seed: int) -> SimulationResult:
    def of(kind: TaskKind) -> Iterable[tuple[int, float, list[float]]]:
        return ((index, threshold, values) for (k, index, threshold), values in samples.items() if k is kind)

    plain = tuple(_run_length(NULLS[index].name, threshold, values) for index, threshold, values in of(TaskKind.NULL))
    rare = tuple(
        _rare(RARE_NULLS[index].name, threshold, values) for index, threshold, values in of(TaskKind.RARE_NULL)
    )
    return SimulationResult(
        quick=quick,
        seed=seed,
        nulls=plain + rare,
        outside=tuple(
            _run_length(OUTSIDE[index].name, height, values) for index, height, values in of(TaskKind.OUTSIDE)
        ),
        effects=tuple(_effect(EFFECTS[index], values) for index, _, values in of(TaskKind.EFFECT)),
        without_clip=tuple(_effect(WITHOUT_CLIP[index], values) for index, _, values in of(TaskKind.WITHOUT_CLIP)),
        others=tuple(_delay(OTHERS[index].name, values) for index, _, values in of(TaskKind.OTHER)),
        errors=tuple(_error(RARE_ERRORS[index].name, values) for index, _, values in of(TaskKind.RARE_ERROR)),
        recoveries=tuple(_recovery(index, values) for index, _, values in of(TaskKind.RECOVERY)),
        steady=tuple(_steady(STEADY_MEANS[index], values) for index, _, values in of(TaskKind.STEADY)),
        quiet_node=_quiet_nodes(
            {index: values for index, _, values in of(TaskKind.START)},
            {index: values for index, _, values in of(TaskKind.UNKNOWN)},
        ),
        pair_nulls=tuple(
            _run_length(PAIR_NULLS[index].name, height, values) for index, height, values in of(TaskKind.PAIR_NULL)
        ),
        pair_delays=tuple(_pair_delay(PAIR_EFFECTS[index], values) for index, _, values in of(TaskKind.PAIR_EFFECT)),
    )


def _run_length(name: str, threshold: float, values: list[float]) -> NullResult:
    """Runs without an alarm count with the horizon at which they ended, so the mean is too low, never too high."""
    mean, lower = sum(values) / len(values), mean_lower(values, HORIZONS * threshold)
    return NullResult(name, threshold, threshold, mean, lower, len(values), "runs")


def _rare(name: str, threshold: float, weights: list[float]) -> NullResult:
    """Run length as the inverse of the rate of false alarms over the first observations."""
    probability, upper = sum(weights) / len(weights), mean_upper(weights, RARE_HORIZON / threshold)
    lengths = RARE_HORIZON / probability, RARE_HORIZON / upper
    return NullResult(name, threshold, threshold, *lengths, len(weights), "importance sampling")


def _delay(name: str, values: list[float]) -> DelayResult:
    ordered = sorted(int(value) for value in values)
    median, p95 = (quantile(ordered, share) for share in (0.5, 0.95))
    bounds = (quantile_bounds(ordered, share) for share in (0.5, 0.95))
    return DelayResult(name, median, next(bounds), p95, next(bounds), len(ordered))


def _effect(effect: Effect, values: list[float]) -> EffectResult:
    allowance = effect.allowance
    name = f"{effect.law} {effect.broadcasts_per_container:g} against {allowance.mean:g}, clipped at {allowance.clip:g}"
    return EffectResult(effect, _delay(name, values))


def _pair_delay(effect: PairEffect, values: list[float]) -> PairDelayResult:
    where = "one run" if effect.one_run else "daemon"
    allowed = "" if effect.allowed == DIFFERENT_SHARE else ", no allowance"
    name = f"{effect.law} {effect.broadcasts_per_container:g} beside {effect.background:g}, {where}{allowed}"
    return PairDelayResult(effect, _delay(name, values))


def _recovery(index: int, values: list[float]) -> DelayResult:
    case = RECOVERIES[index]
    return _delay(f"from {case.faulty:g} to {case.healthy:g} per container", values)


def _error(name: str, weights: list[float]) -> ErrorResult:
    return ErrorResult(name, ALPHA, sum(weights) / len(weights), mean_upper(weights, WORST_WEIGHT))


def _steady(mean: float, values: list[float]) -> SteadyResult:
    return SteadyResult(mean, len(values), sum(values) / len(values), int(max(values)))


def _quiet_nodes(starts: dict[int, list[float]], shares: dict[int, list[float]]) -> tuple[QuietResult, ...]:
    found = []
    for index, share in shares.items():
        name, start = HEALTHY[index].name, starts.get(index)
        delay = _delay(name, start) if start else None
        found.append(QuietResult(name, delay, sum(share) / len(share), mean_upper(share, 1.0)))
    return tuple(found)
