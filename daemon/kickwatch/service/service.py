"""The daemon: trial after trial until a signal, through whatever befalls the engine, the node and the configuration.

The observers are armed once and stay armed. Around them, engine and schedule come and go: a reload begins them anew, an
engine that is gone is waited for. Each step of that machine tells systemd that the daemon lives.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field

import msgspec

from kickwatch import __version__
from kickwatch.configuration.limits import check_budget, limits_of
from kickwatch.configuration.loading import Loaded, differences, digest
from kickwatch.configuration.types import Config, GuardConfig, Preset
from kickwatch.errors import ConfigError, EngineAbsentError, KickwatchError, ObserveError
from kickwatch.experiment.armed_observers import ArmedObservers
from kickwatch.experiment.clean_up import sweep
from kickwatch.experiment.passive import Passive
from kickwatch.experiment.rig import WARM_UP_CONTAINERS, Rig
from kickwatch.experiment.trial_run import TrialRun
from kickwatch.journal.journal import Event, configure_logging, logger
from kickwatch.journal.remark import losses
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.delegation import enter_leaf
from kickwatch.node.lock import NodeLock
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.sd_notify import Notifier
from kickwatch.process.signals import TERMINATION, DrainedError, Shutdown, Switches, until_signalled
from kickwatch.service.arming import arm
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.engine_backoff import EngineBackoff, error_fields
from kickwatch.service.evidence import Evidence
from kickwatch.service.guard import Guard
from kickwatch.service.schedule import Schedule
from kickwatch.service.status import Board
from kickwatch.service.telemetry import Telemetry, belief
from kickwatch.service.watch import Watch
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import EngineNames, check_oci, drives_runtime, resolved_config

_DRAIN_POLL_S = 0.5
_BLIND_RETRY_S = 60.0  # what a control failed for may have passed by then: no descriptor left, a file cut off
Source = Callable[[], Loaded]


async def run_daemon(source: Source, trials: int | None) -> None:
    """Run until SIGTERM or SIGINT, or for `trials` trials. What was started is gone when this returns.

    `source` reads the configuration, at the start and at each reload. Raises KickwatchError for what no waiting mends:
    a configuration that cannot be used, another kickwatch; with `trials` also for an engine that does not answer.
    """
    notifier = Notifier.from_environment()
    ending = Shutdown(notifier.stopping)
    with NodeLock() as lock:
        try:
            await until_signalled(_serve(source, trials, notifier, ending, lock), TERMINATION, ending.begin)
        except asyncio.CancelledError as error:
            if not ending.begun:  # a daemon that ends by itself must not look like one that was told to
                raise RuntimeError("the watch was cancelled, and by nobody") from error
        finally:
            notifier.close()
    logger().info(Event.STOPPED)


async def _serve(source: Source, trials: int | None, notifier: Notifier, ending: Shutdown, lock: NodeLock) -> None:
    config = (await asyncio.to_thread(source)).config
    check_budget(config)
    await asyncio.to_thread(check_oci, config)
    async with AsyncExitStack() as stack:
        switches = stack.enter_context(Switches(config.service.drain_file))
        notifier.status("arming the probes")
        await asyncio.to_thread(lambda: enter_leaf(Cgroups.read()))
        armed = await arm(keep=await asyncio.to_thread(drives_runtime, config))
        stack.callback(armed.close)
        telemetry = Telemetry(armed.observatory)
        stack.push_async_callback(telemetry.close)
        await telemetry.begin(config.metrics)
        service = Service(source, config, trials, notifier, ending, lock, switches, armed, telemetry)
        await service.run()


@dataclass
class Service:
    """The main state machine."""

    source: Source
    config: Config
    trials: int | None
    notifier: Notifier
    ending: Shutdown
    lock: NodeLock
    switches: Switches
    armed: ArmedObservers
    telemetry: Telemetry
    done: int = 0
    due_at: float = 0.0
    swept: bool = False
    engine: str = ""  # the name of the one that answered last
    found: EngineInfo | None = None  # all that it said of itself
    backoff: EngineBackoff = field(default_factory=EngineBackoff)
    guard: tuple[tuple[GuardConfig, Preset], Guard] | None = None
    board: Board = field(default_factory=Board)
    watch: Watch = field(init=False)
    ledger: BudgetLedger = field(init=False)

    async def run(self) -> None:
        """Until all trials are done, or for ever."""
        evidence = await Evidence.open(self.config)
        boot_id = await asyncio.to_thread(kernel.boot_id)
        self.watch = Watch(self.armed, evidence, self.config.service.verdict_max_age_s, boot_id)
        self.ledger = await BudgetLedger.open(self.config, evidence.history)
        self._say_started()
        self.watch.controlled()
        self.due_at = asyncio.get_running_loop().time() + random.random() * self._spread_s()  # noqa: S311 -- no secret
        self._need_watchdog()
        self.notifier.ready()
        try:
            await self._until_done()
        finally:
            await run_shielded(self.watch.evidence.close())

    async def _until_done(self) -> None:
        while self._more():
            try:
                await (self._experiment() if self.config.workload.enabled else self._observe())
            except ConfigError:
                raise
            except (KickwatchError, OSError) as error:
                if self.ending.begun:  # what failed on the way out must not be taken for a trial that did
                    raise asyncio.CancelledError from error
                if self.trials is not None:
                    raise
                await self._prove_after(error)
                await self._retry_later(error)
            if self.switches.reload_asked:
                await self._reload()

    def _spread_s(self) -> float:
        """Nodes that were booted together begin at different moments."""
        return self.config.trial.interval_s * self.config.trial.jitter

    def _more(self) -> bool:
        return self.trials is None or self.done < self.trials

    async def _experiment(self) -> None:
        """Trial after trial, until a reload is asked for or the engine is gone (raises EngineAbsentError)."""
        self.notifier.status("preparing the engine")
        self.telemetry.off("drained" if self.switches.drain_reported else "")
        schedule = Schedule(
            self.config, self.ledger, self.switches, self.notifier, self.telemetry, guard=self._guard_of_now()
        )
        schedule.due_at = self.due_at
        if not await self._may_begin(schedule):
            return
        await self.ledger.spend(WARM_UP_CONTAINERS)
        async with AsyncExitStack() as stack:
            config = resolved_config(self.config, self.engine)
            opening = Rig.open(config, self.armed, self.notifier.progress, self.ending, self._known_engine())
            try:
                rig = await stack.enter_async_context(opening)
            finally:
                await run_shielded(self.ledger.settle(opening.begun, warm_up=True))
            self.swept, self.engine, self.found = True, rig.info.name, rig.info
            self.backoff.found(str(rig.info))
            self.telemetry.reaped(rig.reaped)
            self.watch.note(rig.remarks)
            try:
                await self._trials(rig, schedule)
            except EngineAbsentError as error:
                self.backoff.lost(error)
                rig.engine.shorten_timeouts()  # what it cannot be asked to remove, the next session does
                raise

    async def _trials(self, rig: Rig, schedule: Schedule) -> None:
        while self._more() and await schedule.until_due(rig, self._beat):
            if await rig.engine_changed():
                self.backoff.changed = True
                return
            await self._keep_lock()
            await self._trial(rig, schedule)
            self.due_at = schedule.due_at

    async def _keep_lock(self) -> None:
        """Two kickwatch would take each other's containers for a fault. Raises BusyError, KickwatchError."""
        if await asyncio.to_thread(self.lock.renew):
            logger().info(Event.RESTORED, what=f"{self.lock.path} was removed; it is made and held again")

    def _known_engine(self) -> EngineNames | None:
        """How the engine of the last session, or else of the last trial, named itself and its runtime."""
        if self.found is not None and not self.found.unnamed_fields:
            return EngineNames(str(self.found), self.found.runtime)
        comparison = self.watch.evidence.state.comparison
        stratum = comparison.record.stratum if comparison else None
        return EngineNames(stratum.engine, stratum.runtime) if stratum else None

    def _guard_of_now(self) -> Guard:
        """The guard of the session before where its thresholds hold: its pause goes on through a reload."""
        key = (self.config.guard, self.config.budget.preset)
        if self.guard is None or self.guard[0] != key:
            self.guard = key, Guard(*key)
        return self.guard[1]

    async def _may_begin(self, schedule: Schedule) -> bool:
        """Wait until drain, budget and pressure let us start a container; False when a reload comes first."""
        while not self.switches.reload_asked:
            why = await schedule.held_before(WARM_UP_CONTAINERS)
            if not why:
                return True
            self.notifier.status(why)
            await self._sweep()
            await self._wait(self.config.guard.poll_s)
        return False

    async def _sweep(self) -> None:
        """Once, where nothing is started for a while: what a killed daemon left must not wait for that to end."""
        if not self.swept:
            self.swept = self.config.workload.enabled
            with suppress(KickwatchError, OSError):  # no engine: when it is there, the rig sweeps, or this again
                self.telemetry.reaped(await sweep(self.config))
                self.swept = True

    async def _trial(self, rig: Rig, schedule: Schedule) -> None:
        """One trial; a failure is said and tried again later, since an engine comes back and a hiccup passes."""
        containers = self.config.workload.containers_per_trial
        await self.ledger.spend(containers)
        run = TrialRun(rig, containers, self._step, self.done)
        self.done += 1
        try:
            trial = await self.switches.unless_drained(run.run(), _DRAIN_POLL_S)
        except DrainedError:
            await schedule.drained()
            return
        except (KickwatchError, OSError) as error:
            self.telemetry.failed()
            logger().error(Event.TRIAL_FAILED, **error_fields(error))
            if isinstance(error, EngineAbsentError):
                raise  # it is waited for
            self.watch.not_run(error)
            await self._prove_after(error)
            await rig.engine.info()  # raises EngineAbsentError, too
            await rig.recover()
        else:
            outcome = await run_shielded(self.watch.take(trial))
            self.telemetry.trial(trial, outcome, self.watch)
            self.telemetry.reaped(await rig.tidy())
        finally:  # however it ended: a drain, an engine that is gone, a signal
            await run_shielded(self.ledger.settle(run.begun))
        self.watch.note((*losses(self.armed.observatory.losses), *run.remarks))
        schedule.rest()
        self.notifier.progress()

    async def _prove_after(self, error: KickwatchError | OSError) -> None:
        """Repeat the positive control after a read that the kernel refused: if it fails, too, nothing is known."""
        if isinstance(error, ObserveError):
            await self.watch.control_if_due(0.0)

    async def _observe(self) -> None:
        """Passive: bill what others start, until a reload is asked for."""
        self.notifier.status("passive: watching the containers that others start")
        self.telemetry.off("passive")
        self.telemetry.guarded(())
        async with aclosing(Passive(self.config, self.armed, self._step)) as passive:
            while not self.switches.reload_asked:
                await self._sweep()
                await passive.look()
                await self._wait(self.config.guard.poll_s)
                summary = passive.summary_if_due(self.config.service.summary_period_s)
                if summary is not None:
                    logger().info(Event.SUMMARY, **belief(self.watch), **summary)

    async def _beat(self) -> None:
        """What is due beside the trials."""
        period_s = self.config.trial.control_period_s
        await self.watch.control_if_due(min(period_s, _BLIND_RETRY_S) if self.watch.blind else period_s)
        self.watch.note_age()
        summed_up = self.config.service.summary_period_s if self.config.workload.enabled else None
        self.telemetry.troubles(engine=self.backoff.waiting, budget=self.ledger.trouble.lasts)
        await self.telemetry.beat(self.watch, summed_up)
        await self.board.tell(self.watch, self.notifier.doing)

    async def _wait(self, seconds: float) -> None:
        self.notifier.progress()
        await self._beat()
        await self.switches.sleep(seconds)

    def _step(self, text: str) -> None:
        """A trial has come one step on."""
        self.notifier.progress()
        self.notifier.status(f"{self.watch.condition}; trial {self.done}: {text}")

    async def _retry_later(self, error: KickwatchError | OSError) -> None:
        """Say what hinders, and wait longer each time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.backoff.pause_s(error)
        self.notifier.status(f"{self.watch.condition}; waits: {error}")
        while loop.time() < until and not self.switches.reload_asked:
            await self._wait(min(until - loop.time(), self.config.guard.poll_s))

    async def _reload(self) -> None:
        """Take the configuration as it is now, or keep the old one and say what is wrong with the new."""
        self.switches.reload_asked = False
        self.notifier.reloading()
        try:
            loaded = await asyncio.to_thread(self.source)
            check_budget(loaded.config)
            await asyncio.to_thread(check_oci, loaded.config)
            await self._adopt(loaded)
        except ConfigError as error:
            logger().error(Event.RELOAD_REFUSED, what=error.what, remedy=error.remedy)
        self.notifier.ready()

    async def _adopt(self, loaded: Loaded) -> None:
        changed = differences(self.config, loaded.config)
        if loaded.config.metrics != self.config.metrics:
            telemetry, had = self.telemetry, self.config.metrics
            await _or_back(telemetry.open(loaded.config.metrics), lambda: telemetry.begin(had))
        self.config = loaded.config
        configure_logging(form=self.config.log.format, level=self.config.log.level)
        for warning in loaded.warnings:
            logger().warning(Event.CONFIG_WARNING, what=warning)
        self.switches.drain_file = self.config.service.drain_file
        adopted = await self.watch.evidence.adopted(self.config)
        self.watch.adopt(adopted, self.config.service.verdict_max_age_s)
        self.ledger.adopt(self.config)
        self._need_watchdog()
        logger().info(Event.RELOADED, changed=changed)

    def _need_watchdog(self) -> None:
        self.notifier.need_watchdog(longest_step_s(self.config))

    def _say_started(self) -> None:
        observatory = self.armed.observatory
        logger().info(
            Event.STARTED,
            version=__version__,
            kernel=kernel.release(),
            cpus_online=observatory.cpus_online,
            observers=msgspec.to_builtins(observatory.observers),
            losses=observatory.losses,
            config_digest=digest(self.config),
            budget={"preset": self.config.budget.preset.value, **msgspec.to_builtins(limits_of(self.config.budget))},
            mode="experiment" if self.config.workload.enabled else "passive",
        )
        self.watch.note(losses(observatory.losses))


def longest_step_s(config: Config) -> float:
    """How long the daemon may lawfully be without a step that feeds the watchdog, with some to spare.

    A call to the engine, its settling included, and what a container is held; or the time between two looks of the
    guard. Between two containers of a slow rate nothing is to be done either.
    """
    apart_s = 1.0 / config.workload.rate_hz if config.workload.rate_hz else 0.0
    step_s = 2 * config.engine.timeout_s + config.workload.hold_s
    return max(step_s, config.guard.poll_s) + apart_s + 60.0


async def _or_back(work: Awaitable[None], back: Callable[[], Awaitable[None]]) -> None:
    """Do it, or bring back what was there before and raise."""
    try:
        await work
    except ConfigError:
        await back()
        raise
