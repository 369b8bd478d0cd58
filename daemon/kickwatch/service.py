"""The daemon: trial after trial until a signal, each adds to the evidence, changes of condition are logged."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kickwatch import __version__
from kickwatch.alert.changes import alerts
from kickwatch.alert.journal import Event, logger
from kickwatch.config import Config
from kickwatch.detect.single import Single, one_shot
from kickwatch.detect.state import Outcome
from kickwatch.detect.verdict import MIN_CONTAINERS
from kickwatch.errors import KickwatchError
from kickwatch.evidence import Evidence
from kickwatch.laboratory import Laboratory
from kickwatch.ledger import counted, creation_broadcasts
from kickwatch.model import Trial, Verdict
from kickwatch.node.lock import NodeLock
from kickwatch.observe.control import positive_control
from kickwatch.plan import TrialRun
from kickwatch.shielded import finish

T = TypeVar("T")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAILURES_TOLD = 3
_MOST_TRIALS, _MOST_CONTAINERS = 20, 200


async def decide(
    config: Config, containers: int, progress: Callable[[str], None], *, until_decided: bool = False
) -> tuple[list[Trial], Single]:
    """Set up, run one trial (or so many as a verdict needs), judge them, take everything down again."""
    with NodeLock():
        async with Laboratory.open(config) as laboratory:
            trials = [await TrialRun(laboratory, containers, progress).run()]
            single = one_shot(trials)
            while until_decided and single.verdict is Verdict.UNKNOWN and single.more_containers:
                if len(trials) >= _MOST_TRIALS:
                    break
                progress(f"undecided: about {single.more_containers} more containers")
                more = min(max(single.more_containers, containers), _MOST_CONTAINERS)
                trials.append(await TrialRun(laboratory, more, progress, len(trials)).run())
                single = one_shot(trials)
    return trials, single


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
    evidence = await Evidence.open(config)
    async with Laboratory.open(config) as laboratory:
        watch = Watch(laboratory, evidence)
        await watch.begin()
        done = 0
        while trials is None or done < trials:
            await watch.control_if_due()
            trial = await _try(laboratory, done)
            done += 1
            if trial is not None:
                await finish(watch.take(trial))
            if trials is None or done < trials:
                await asyncio.sleep(config.trial.interval_s)


@dataclass
class Watch:
    """What the daemon remembers between trials: evidence, the newest trials, what was said."""

    laboratory: Laboratory
    evidence: Evidence
    recent: list[Trial] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    blind: bool = False
    controlled_at: float = 0.0

    async def begin(self) -> None:
        """Say what was started, what is missing, and whether the probe passed its first control."""
        node = await asyncio.to_thread(self.laboratory.node)
        logger().info(
            Event.STARTED, version=__version__, kernel=node.kernel, engine=node.engine, cpus_online=node.cpus_online
        )
        for loss in self.laboratory.observatory.losses:
            logger().warning(Event.CAPABILITY_LOST, what=loss)
        self._controlled()

    async def control_if_due(self) -> None:
        """Repeat the positive control once per configured period, between windows."""
        loop = asyncio.get_running_loop()
        if loop.time() - self.controlled_at >= self.laboratory.config.trial.control_period_s:
            self.laboratory.control = await positive_control(self.laboratory.observatory)
            self._controlled()

    def _controlled(self) -> None:
        """A control that fails is an alert; so is the first one that passes again. Nothing is said twice."""
        self.controlled_at = asyncio.get_running_loop().time()
        control = self.laboratory.control
        if not control.passed and not self.blind:
            logger().error(Event.OBSERVER_BLIND, what=control.detail, cpus=list(control.cpus))
        if control.passed and self.blind:
            logger().info(Event.OBSERVER_SEES, what=control.detail, cpus=list(control.cpus))
        self.blind = not control.passed

    async def take(self, trial: Trial) -> None:
        """Step the evidence by one trial, and say what it changes."""
        outcome = await self.evidence.take(trial)
        if trial.void:
            logger().warning(Event.TRIAL_VOID, trial=trial.trial_id, reason=trial.void)
            return
        self.recent = _recent([*self.recent, trial])
        _note(trial, self.said)
        _tell(trial, outcome)
        for alert in alerts(outcome, self.recent):
            getattr(logger(), alert.level)(alert.event, **alert.fields)


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


def _tell(trial: Trial, outcome: Outcome) -> None:
    logger().info(
        Event.TRIAL_FINISHED,
        trial=trial.trial_id,
        verdict=outcome.verdict.value,
        reasons=list(outcome.reasons),
        findings=list(outcome.findings),
        containers=len(counted(trial)),
        failures=[container.failure for container in trial.containers if container.failure][:_FAILURES_TOLD],
        failed=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=creation_broadcasts(trial.churn.cells),
        seed=trial.seed,
        order=list(trial.order),
        kmem_accounting=trial.kmem_accounting.value,
    )
