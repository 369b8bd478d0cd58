"""Pieces of work, small enough for a progress bar. Each gives the same result on any CPU."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import islice
from random import Random

import msgspec

from kickwatch.detect.edetector import EDetector
from kickwatch.detect.oneshot import ALPHA
from kickwatch.detect.pair_detector import PairDetector
from kickwatch.detect.simulate.effects import (
    EFFECTS,
    OTHERS,
    RECOVERIES,
    STEADY_MEANS,
    WITHOUT_CLIP,
    Effect,
    OtherEffect,
    changes,
    containers_to_recover,
)
from kickwatch.detect.simulate.healthy import HEALTHY, containers_to_quiet, share_unknown
from kickwatch.detect.simulate.importance import RARE_ERRORS, RARE_NULLS, alarm_weight, error_weight
from kickwatch.detect.simulate.laws import Source
from kickwatch.detect.simulate.nulls import NULLS
from kickwatch.detect.simulate.outside import OUTSIDE
from kickwatch.detect.simulate.pair_effects import PAIR_EFFECTS
from kickwatch.detect.simulate.pair_nulls import PAIR_NULLS, PairScenario
from kickwatch.detect.wager import Wager

THRESHOLD = 5.3e8  # one stream, one observation a minute, one false alarm in 1000 years
HORIZONS = 8  # a run without an alarm ends after this many thresholds
RARE_HORIZON = 5000
STEADY_OBSERVATIONS = 50_000
LONGEST_DELAY = 100_000


class TaskKind(StrEnum):
    """What a piece of work measures. Its index is the place in the list of that kind."""

    NULL = "null"
    OUTSIDE = "outside"
    EFFECT = "effect"
    WITHOUT_CLIP = "without-clip"
    OTHER = "other"
    RARE_NULL = "rare-null"
    RARE_ERROR = "rare-error"
    RECOVERY = "recovery"
    STEADY = "steady"
    START = "start"
    UNKNOWN = "unknown"
    PAIR_NULL = "pair-null"
    PAIR_EFFECT = "pair-effect"


SCENARIOS: dict[TaskKind, Sequence[object]] = {
    TaskKind.NULL: NULLS,
    TaskKind.OUTSIDE: OUTSIDE,
    TaskKind.EFFECT: EFFECTS,
    TaskKind.WITHOUT_CLIP: WITHOUT_CLIP,
    TaskKind.OTHER: OTHERS,
    TaskKind.RARE_NULL: RARE_NULLS,
    TaskKind.RARE_ERROR: RARE_ERRORS,
    TaskKind.RECOVERY: RECOVERIES,
    TaskKind.STEADY: STEADY_MEANS,
    TaskKind.START: HEALTHY,
    TaskKind.UNKNOWN: HEALTHY,
    TaskKind.PAIR_NULL: PAIR_NULLS,
    TaskKind.PAIR_EFFECT: PAIR_EFFECTS,
}


FAULTS: dict[TaskKind, tuple[Effect | OtherEffect, ...]] = {
    TaskKind.EFFECT: EFFECTS,
    TaskKind.WITHOUT_CLIP: WITHOUT_CLIP,
    TaskKind.OTHER: OTHERS,
}


class Task(msgspec.Struct, frozen=True):
    """`runs` samples of one scenario at one threshold; `chunk` numbers the tasks of the scenario."""

    kind: TaskKind
    index: int
    threshold: float
    runs: int
    chunk: int
    seed: int


def run_task(task: Task) -> list[float]:
    """The samples: observations to the alarm, weights, or changes of the alarm, depending on the kind."""
    random = Random(f"{task.seed}/{task.kind}/{task.index}/{task.threshold}/{task.chunk}")  # noqa: S311 - no secret
    sample = _sampler(task, random)
    return [sample() for _ in range(task.runs)]


_SAMPLES: dict[TaskKind, Callable[[Task, Random], float]] = {
    TaskKind.RARE_NULL: lambda task, random: alarm_weight(RARE_NULLS[task.index], task.threshold, RARE_HORIZON, random),
    TaskKind.RARE_ERROR: lambda task, random: error_weight(RARE_ERRORS[task.index], ALPHA, random),
    TaskKind.RECOVERY: lambda task, random: containers_to_recover(RECOVERIES[task.index], task.threshold, random),
    TaskKind.STEADY: lambda task, random: changes(
        STEADY_MEANS[task.index], task.threshold, STEADY_OBSERVATIONS, random
    ),
    TaskKind.START: lambda task, random: containers_to_quiet(HEALTHY[task.index], random),
    TaskKind.UNKNOWN: lambda task, random: share_unknown(HEALTHY[task.index], random),
}


def _sampler(task: Task, random: Random) -> Callable[[], float]:
    """A function that draws one sample. Where it needs a wager, that is made once for all samples."""
    if task.kind in _SAMPLES:
        return lambda: _SAMPLES[task.kind](task, random)
    if task.kind in {TaskKind.NULL, TaskKind.OUTSIDE}:
        scenario = (NULLS if task.kind is TaskKind.NULL else OUTSIDE)[task.index]
        wager, horizon = scenario.wager(), int(HORIZONS * task.threshold)
        return lambda: _observations_to_alarm(wager, scenario.source, task.threshold, horizon, random)
    if task.kind is TaskKind.PAIR_NULL:
        pairs = PAIR_NULLS[task.index]
        detector = pairs.detector(task.threshold)
        return lambda: _trials_to_alarm(detector, pairs, int(HORIZONS * task.threshold), random)
    if task.kind is TaskKind.PAIR_EFFECT:
        containers = PAIR_EFFECTS[task.index].containers()
        return lambda: containers(random)
    effect = FAULTS[task.kind][task.index]
    wager = effect.wager()
    return lambda: _observations_to_alarm(wager, effect.source, task.threshold, LONGEST_DELAY, random)


def _trials_to_alarm(detector: PairDetector, pairs: PairScenario, horizon: int, random: Random) -> int:
    """Trials to the alarm from a fresh start, or the horizon."""
    state = detector.start()
    for trial in islice(pairs.node.trials(random), horizon):
        state, alarmed = detector.scan(state, trial)
        if alarmed:
            break
    return state.steps


def _observations_to_alarm(wager: Wager, source: Source, threshold: float, horizon: int, random: Random) -> int:
    """Observations to the alarm from a fresh start, or the horizon. No start is slower: more evidence only helps."""
    detector = EDetector(wager, threshold)
    state, _ = detector.scan(detector.start(), islice(source(random), horizon))
    return state.steps
