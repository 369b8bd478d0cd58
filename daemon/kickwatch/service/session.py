"""A session: one configuration, with one engine or passive. It ends for a reload, or when there is nothing more to do.

What it learns goes into the daemon's state at once; nothing is copied back at its end.
"""

import asyncio
from contextlib import AsyncExitStack, aclosing

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineAbsentError, KickwatchError, LeftoversStayError
from kickwatch.experiment.rig import WARM_UP_CONTAINERS
from kickwatch.outlets.events import Off, PassiveSummary, Reaped, Restored, TrialFailed, TrialsOff
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import DrainedError
from kickwatch.service.engine_backoff import LONGEST_RETRY_S, error_fields
from kickwatch.service.experiments import PassiveWatch, RigOpening, SessionRig
from kickwatch.service.parts import Parts
from kickwatch.service.progress import others_status
from kickwatch.service.schedule import Schedule
from kickwatch.workload.engine_choice import EngineNames, resolved_config

_DRAIN_POLL_S = 0.5
_SWEEP_AGAIN_S = 60.0


class Session:
    """What both kinds have in common."""

    def __init__(self, config: Config, parts: Parts) -> None:
        """`parts` outlive the session."""
        self._config = config
        self._parts = parts
        self._state = parts.state

    async def _sweep(self) -> None:
        """Remove what a killed daemon left, while no rig does because nothing is started.

        Once, and again after a minute while the engine does not remove it: a start in progress delays that. It fails
        without an engine: then the rig removes it later, or in passive mode the next call.
        """
        if self._state.swept or self._parts.now_s() < self._state.sweep_from_s:
            return
        self._state.swept = self._config.workload.enabled
        try:
            await self._parts.report(Reaped(await self._parts.experiments.sweep(self._config)))
            self._state.swept = True
        except LeftoversStayError:
            self._state.swept, self._state.sweep_from_s = False, self._parts.now_s() + _SWEEP_AGAIN_S
        except (KickwatchError, OSError):
            return


class ExperimentSession(Session):
    """Trials with one engine."""

    def __init__(self, config: Config, parts: Parts) -> None:
        """The guard's pause goes on if its thresholds are the same as before."""
        super().__init__(config, parts)
        self._schedule = Schedule(config, parts)
        self._state.guard.configure(config.guard, config.budget.preset)

    async def run(self) -> None:
        """Trial after trial, until a reload is requested, all trials are made, or the engine is another one.

        Raises EngineAbsentError if the engine is gone, and other KickwatchError or OSError if the start fails.
        """
        parts = self._parts
        parts.watch.passive = False
        parts.heartbeat.status("preparing the engine")
        await parts.report(TrialsOff(Off.DRAINED if self._state.drain.reported else None))
        if not await self._may_start():
            return
        await parts.ledger.charge(WARM_UP_CONTAINERS)
        async with AsyncExitStack() as stack:
            config = resolved_config(self._config, self._state.engine_name)
            rig = await self._open(stack, parts.experiments.open_rig(config, self._known_engine()))
            self._state.swept, self._state.engine = True, rig.info
            await self._state.backoff.found(str(rig.info))
            await parts.report(Reaped(rig.reaped))
            await parts.watch.remark(rig.remarks)
            try:
                await self._trials(rig)
            except EngineAbsentError as error:
                await self._state.backoff.lost(error)
                rig.shorten_timeouts()  # before the rig is taken down
                raise

    async def _may_start(self) -> bool:
        """Wait until drain, budget and pressure allow the warm-up. False if a reload is requested first."""
        while not self._parts.switches.reload_asked:
            reason = await self._schedule.blocked_before(WARM_UP_CONTAINERS)
            if not reason:
                return True
            self._parts.heartbeat.status(reason)
            await self._sweep()
            await self._parts.wait(self._config, self._config.guard.poll_s)
        return False

    async def _open(self, stack: AsyncExitStack, opening: RigOpening) -> SessionRig:
        try:
            return await stack.enter_async_context(opening)
        finally:
            await run_shielded(self._parts.ledger.correct(opening.begun, warm_up=True))

    def _known_engine(self) -> EngineNames | None:
        """How the engine named itself: in the last session, or else in the last trial of the history."""
        comparison = self._parts.watch.evidence.state.comparison
        stratum = comparison.record.stratum if comparison else None
        of_history = EngineNames(stratum.engine, stratum.runtime) if stratum else None
        return self._state.known_engine or of_history

    async def _trials(self, rig: SessionRig) -> None:
        while self._state.more and await self._schedule.until_due(rig):
            if await rig.engine_changed():
                self._state.backoff.changed = True
                return
            await self._renew_lock()
            await self._trial(rig)

    async def _renew_lock(self) -> None:
        """Two kickwatch would see each other's containers as a fault. Raises BusyError, KickwatchError."""
        if await asyncio.to_thread(self._parts.lock.renew):
            what = f"the lock {self._parts.lock.path} was removed; kickwatch made it again and holds it"
            await self._parts.report(Restored(what))

    async def _trial(self, rig: SessionRig) -> None:
        """One trial. A failure is reported, and the next trial tries again. Raises EngineAbsentError."""
        parts, containers = self._parts, self._config.workload.containers_per_trial
        await parts.ledger.charge(containers)
        run = rig.trial(containers, parts.step, self._state.trials_begun)
        self._state.trials_begun += 1
        self._state.trial_since_s = parts.now_s()
        try:
            trial = await parts.switches.unless_drained(run.run(), _DRAIN_POLL_S)
        except DrainedError:
            await self._state.drain.look()
            return
        except (KickwatchError, OSError) as error:
            await self._recover(rig, error)
        else:
            await run_shielded(parts.watch.take(trial))
            await parts.report(Reaped(await rig.tidy()))
        finally:  # also after a drain, a signal, or without an engine
            self._state.trial_since_s = None
            await run_shielded(parts.ledger.correct(run.begun))
        await parts.watch.remark_losses(parts.experiments.losses)
        await parts.watch.remark(run.remarks)
        self._schedule.rest()
        parts.heartbeat.progress()

    async def _recover(self, rig: SessionRig, error: KickwatchError | OSError) -> None:
        """After a failed trial. Raises EngineAbsentError: a missing engine is waited for outside the session."""
        await self._parts.report(TrialFailed(**error_fields(error)))
        if isinstance(error, EngineAbsentError):
            raise error
        await self._parts.watch.trial_failed(error)
        await self._parts.watch.control_after(error)
        await rig.recover()


class PassiveSession(Session):
    """The bill of containers that others start."""

    async def run(self) -> None:
        """Until a reload is requested."""
        parts, begun_s = self._parts, self._parts.now_s()
        parts.watch.passive = True
        parts.heartbeat.status("passive: watching containers that others start")
        await parts.report(TrialsOff(Off.PASSIVE))
        await self._state.guard.off()
        async with aclosing(parts.experiments.passive(self._config, parts.passive_step)) as passive:
            try:
                while not parts.switches.reload_asked:
                    await self._round(passive)
                    if parts.now_s() - begun_s > LONGEST_RETRY_S:  # an error at each second look is no success
                        self._state.backoff.works()
            finally:
                self._state.others = None

    async def _round(self, passive: PassiveWatch) -> None:
        """Look once, and report what is due."""
        parts = self._parts
        await self._sweep()
        await passive.look()
        self._state.others = others_status(*passive.counted())
        if (record := passive.record_if_due()) is not None:
            await run_shielded(parts.watch.take_passive(record))
        await parts.watch.remark_losses(parts.experiments.losses)
        await parts.wait(self._config, self._config.guard.poll_s)
        if (fields := passive.summary_if_due(self._config.service.summary_period_s)) is not None:
            await parts.report(PassiveSummary(parts.watch.belief(), fields))
