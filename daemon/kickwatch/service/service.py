"""The daemon's state machine: session after session, whatever happens to the engine, the node and the configuration.

A reload ends one session and starts another. While an engine is gone, the daemon waits for it between two sessions.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kickwatch import __version__
from kickwatch.configuration.limits import check_budget, limits_of
from kickwatch.configuration.loading import Loaded, differences, digest
from kickwatch.configuration.types import Config
from kickwatch.errors import ConfigError, KickwatchError
from kickwatch.node import kernel
from kickwatch.outlets.events import ConfigWarning, ProgressOpened, Reloaded, ReloadRefused, Started
from kickwatch.outlets.outlet import Outlets
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import Shutdown
from kickwatch.service.parts import Parts
from kickwatch.service.progress import progress_of
from kickwatch.service.session import ExperimentSession, PassiveSession
from kickwatch.workload.engine_choice import check_oci

Source = Callable[[], Loaded]


@dataclass
class Service:
    """Runs sessions, waits between them, and takes reloads."""

    source: Source
    config: Config
    parts: Parts
    outlets: Outlets
    shutdown: Shutdown

    async def run(self) -> None:
        """Until all trials are made, or for ever."""
        parts = self.parts
        await self._report_start()
        await parts.watch.check_control()
        spread_s = self.config.trial.interval_s * self.config.trial.jitter
        parts.state.due_s = parts.now_s() + parts.draw() * spread_s  # nodes that booted together start apart
        parts.heartbeat.configure(self.config)
        parts.heartbeat.ready()
        await parts.report(ProgressOpened(lambda: progress_of(self.config, parts)))
        try:
            await self._run_sessions()
        finally:
            await run_shielded(parts.watch.evidence.close())

    async def _run_sessions(self) -> None:
        while self.parts.state.more:
            session = ExperimentSession if self.config.workload.enabled else PassiveSession
            try:
                await session(self.config, self.parts).run()
            except ConfigError:
                raise
            except (KickwatchError, OSError) as error:
                if self.shutdown.begun:  # an error of the clean-up is no failed trial
                    raise asyncio.CancelledError from error
                if self.parts.state.trials is not None:
                    raise
                await self.parts.watch.control_after(error)
                await self._retry_later(error)
            if self.parts.switches.reload_asked:
                await self._reload()

    async def _retry_later(self, error: KickwatchError | OSError) -> None:
        """Log the error and back off exponentially."""
        parts = self.parts
        until_s = parts.now_s() + await parts.state.backoff.failed(error)
        parts.heartbeat.status(f"{parts.watch.condition}; waiting: {error}")
        while parts.now_s() < until_s and not parts.switches.reload_asked:
            await parts.wait(self.config, min(until_s - parts.now_s(), self.config.guard.poll_s))

    async def _reload(self) -> None:
        """Take the configuration as it is now. If it cannot be used, the old one stays in force."""
        self.parts.switches.reload_asked = False
        self.parts.heartbeat.reloading()
        try:
            loaded = await asyncio.to_thread(self.source)
            check_budget(loaded.config)
            await asyncio.to_thread(check_oci, loaded.config)
            await self._adopt(loaded)
        except ConfigError as error:
            await self.parts.report(ReloadRefused(error.what, error.remedy))
        self.parts.heartbeat.ready()

    async def _adopt(self, loaded: Loaded) -> None:
        changed = tuple(differences(self.config, loaded.config))
        await self.outlets.reload(loaded.config, self.config)
        self.config = config = loaded.config
        for warning in loaded.warnings:
            await self.parts.report(ConfigWarning(warning))
        watch = self.parts.watch
        self.parts.switches.drain_file = config.service.drain_file
        await watch.adopt(await watch.evidence.adopted(config), config.service.verdict_max_age_s)
        self.parts.ledger.adopt(config)
        self.parts.heartbeat.configure(config)
        await self.parts.report(Reloaded(changed))

    def _budget(self) -> dict[str, object]:
        """The preset and the limits; what earlier daemons spent shows as the wait for the first trial."""
        config = self.config
        budget = {"preset": config.budget.preset.value, **msgspec.to_builtins(limits_of(config.budget))}
        wait = self.parts.ledger.wait(config.workload.containers_per_trial)
        if config.workload.enabled and wait.seconds > 0:
            budget |= {"first_trial_in_s": round(wait.seconds), "why": wait.why}
        return budget

    def _passive_rung(self) -> dict[str, str]:
        """How the containers of others are counted; nothing where none are."""
        enabled = self.config.workload.enabled
        return {} if enabled else {"containers": self.parts.experiments.containers_rung.value}

    async def _report_start(self) -> None:
        config, experiments, watch = self.config, self.parts.experiments, self.parts.watch
        started = Started(
            version=__version__,
            kernel=kernel.release(),
            cpus_online=experiments.cpus_online,
            observers=msgspec.to_builtins(experiments.observers) | self._passive_rung(),
            losses=tuple(dict.fromkeys(loss.lost.value for loss in experiments.losses)),
            config_digest=digest(config),
            budget=self._budget(),
            mode="experiment" if config.workload.enabled else "passive",
        )
        await self.parts.report(started)
        await watch.opened()
        await watch.remark_losses(experiments.losses)
