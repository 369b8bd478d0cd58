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
from kickwatch.errors import KickwatchError
from kickwatch.laboratory import Laboratory
from kickwatch.ledger import counted, creation_broadcasts
from kickwatch.model import Trial
from kickwatch.node.lock import NodeLock
from kickwatch.plan import TrialRun

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAILURES_TOLD = 3


async def one_trial(config: Config, containers: int, progress: Callable[[str], None]) -> tuple[Trial, Judgement]:
    """Set up, run one trial, judge it, take everything down again."""
    with NodeLock():
        async with Laboratory.open(config) as laboratory:
            trial = await TrialRun(laboratory, containers, progress).run()
    return trial, judge([trial])


async def until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; the first SIGTERM, SIGINT or SIGHUP cancels it, and its clean-up runs to the end.

    Further signals change nothing: the clean-up is bounded. Raises CancelledError when a signal came.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in _SIGNALS:
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
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
        conditions, recent, said = Conditions(), list[Trial](), set[str]()
        done = 0
        while trials is None or done < trials:
            trial = await _try(laboratory, done)
            done += 1
            if trial is not None and trial.void:
                log.warning(Event.TRIAL_VOID, trial=trial.trial_id, reason=trial.void)
            elif trial is not None:
                recent = _recent([*recent, trial])
                _note(trial, said)
                _tell(conditions, recent)
            if trials is None or done < trials:
                await asyncio.sleep(config.trial.interval_s)


async def _try(laboratory: Laboratory, number: int) -> Trial | None:
    """One trial; a failure is said and tried again later, since an engine comes back and a hiccup passes."""
    containers = laboratory.config.workload.containers_per_trial
    try:
        return await TrialRun(laboratory, containers, lambda _: None, number).run()
    except KickwatchError as error:
        logger().error(Event.TRIAL_FAILED, what=error.what, remedy=error.remedy)
    await laboratory.recover()
    return None


def _note(trial: Trial, said: set[str]) -> None:
    """What a person should know of the set-up (a knob the kernel ignores, a lost rung): each once."""
    for note in trial.notes:
        if note not in said:
            said.add(note)
            logger().warning(Event.NOTE, what=note)


def _recent(trials: Sequence[Trial]) -> list[Trial]:
    """The newest trials that together have enough containers for a verdict."""
    kept: list[Trial] = []
    containers = 0
    for trial in reversed(trials[-MIN_CONTAINERS:]):  # at most so many: failed ones bring no containers
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
        failures=[container.failure for container in trial.containers if container.failure][:_FAILURES_TOLD],
        failed=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=creation_broadcasts(trial.churn.cells),
        seed=trial.seed,
        order=list(trial.order),
        kmem_accounting=trial.kmem_accounting.value,
    )
    for alert in conditions.update(recent, judgement):
        getattr(logger(), alert.level)(alert.event, **alert.fields)
