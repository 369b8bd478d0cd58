"""The daemon: trial after trial until a signal, each judged with its forerunners, changes of condition logged."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kickwatch import __version__
from kickwatch.alert.condition import Conditions
from kickwatch.alert.journal import Event, logger
from kickwatch.config import Config
from kickwatch.detect.verdict import MIN_CONTAINERS, Judgement, judge
from kickwatch.errors import EngineError
from kickwatch.laboratory import Laboratory
from kickwatch.ledger import counted, creation_broadcasts
from kickwatch.model import Trial
from kickwatch.node.lock import NodeLock
from kickwatch.plan import TrialRun

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def one_trial(config: Config, containers: int, progress: Callable[[str], None]) -> tuple[Trial, Judgement]:
    """Set up, run one trial, judge it, take everything down again."""
    with NodeLock():
        async with Laboratory.open(config) as laboratory:
            trial = await TrialRun(laboratory, containers, progress).run()
    return trial, judge([trial])


async def until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; SIGTERM and SIGINT cancel it, and its clean-up then runs. Raises CancelledError in that case."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def run_daemon(config: Config, trials: int | None) -> None:
    """Run until SIGTERM or SIGINT, or for `trials` trials. What was started is gone when this returns."""
    with NodeLock(), suppress(asyncio.CancelledError):
        await until_signalled(_watch(config, trials))
    logger().info(Event.STOPPED)


async def _watch(config: Config, trials: int | None) -> None:
    log = logger()
    async with Laboratory.open(config) as laboratory:
        node = await asyncio.to_thread(laboratory.node)
        log.info(
            Event.STARTED, version=__version__, kernel=node.kernel, engine=node.engine, cpus_online=node.cpus_online
        )
        for loss in laboratory.observatory.losses:
            log.warning(Event.CAPABILITY_LOST, what=loss)
        conditions, recent = Conditions(), list[Trial]()
        done = 0
        while trials is None or done < trials:
            done += 1
            trial = await _try(laboratory)
            if trial is not None:
                recent = _recent([*recent, trial])
                _tell(conditions, recent)
            if trials is None or done < trials:
                await asyncio.sleep(config.trial.interval_s)


async def _try(laboratory: Laboratory) -> Trial | None:
    """One trial; an engine that fails is said and tried again later, since it may come back."""
    containers = laboratory.config.workload.containers_per_trial
    try:
        return await TrialRun(laboratory, containers, lambda _: None).run()
    except EngineError as error:
        logger().error(Event.TRIAL_FAILED, what=error.what, remedy=error.remedy)
        return None


def _recent(trials: Sequence[Trial]) -> list[Trial]:
    """The newest trials that together have enough containers for a verdict."""
    kept: list[Trial] = []
    containers = 0
    for trial in reversed(trials):
        if containers >= MIN_CONTAINERS:
            break
        kept.insert(0, trial)
        containers += len(counted(trial))
    return kept


def _tell(conditions: Conditions, recent: Sequence[Trial]) -> None:
    judgement = judge(recent)
    trial = recent[-1]
    logger().info(
        Event.TRIAL_FINISHED,
        trial=trial.trial_id,
        verdict=judgement.verdict.value,
        reasons=list(judgement.reasons),
        findings=list(judgement.findings),
        containers=len(counted(trial)),
        failures=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=creation_broadcasts(trial.churn.cells),
        seed=trial.seed,
        order=list(trial.order),
        kmem_accounting=trial.kmem_accounting.value,
    )
    for alert in conditions.update(recent, judgement):
        getattr(logger(), alert.level)(alert.event, **alert.fields)
