"""Puts the daemon together on this node, and takes it apart."""

import asyncio
import random
import time
from contextlib import AsyncExitStack

from kickwatch.configuration.limits import check_budget
from kickwatch.configuration.types import Config
from kickwatch.experiment.armed_observers import ArmedObservers, listed_cpus
from kickwatch.journal.journal import Event, logger
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.delegation import enter_leaf
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.node.roots import HOST
from kickwatch.outlets.journal_outlet import JournalOutlet
from kickwatch.outlets.metrics.outlet import PrometheusOutlet
from kickwatch.outlets.outlet import Outlets, Report
from kickwatch.outlets.status_file import StatusFileOutlet
from kickwatch.outlets.summary import SummaryOutlet
from kickwatch.process.sd_notify import Notifier
from kickwatch.process.signals import TERMINATION, Shutdown, Switches, until_signalled
from kickwatch.service.arming import arm
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.daemon_state import DaemonState
from kickwatch.service.drain import Drain
from kickwatch.service.engine_backoff import EngineBackoff
from kickwatch.service.evidence import Evidence
from kickwatch.service.heartbeat import Heartbeat
from kickwatch.service.live_rates import LiveRates
from kickwatch.service.node_experiments import NodeExperiments
from kickwatch.service.node_guard import NodeGuard
from kickwatch.service.parts import Parts
from kickwatch.service.service import Service, Source
from kickwatch.service.watch import Watch
from kickwatch.workload.cri_support import find_kubelet
from kickwatch.workload.engine_choice import check_oci, drives_runtime


async def run_daemon(source: Source, trials: int | None) -> None:
    """Run until SIGTERM or SIGINT, or for `trials` trials. What was started is gone when this returns.

    `source` reads the configuration, at the start and at each reload. Raises KickwatchError for what waiting does not
    fix: an unusable configuration, another kickwatch; with `trials` also for an engine that does not answer.
    """
    notifier = Notifier.from_environment()
    shutdown = Shutdown(notifier.stopping)
    with NodeLock() as lock:
        try:
            await until_signalled(_serve(source, trials, notifier, shutdown, lock), TERMINATION, shutdown.begin)
        except asyncio.CancelledError as error:
            if not shutdown.begun:  # must not look like an end that a signal asked for
                raise RuntimeError("main task cancelled without a signal (a bug)") from error
        finally:
            notifier.close()
    logger().info(Event.STOPPED)


async def _serve(source: Source, trials: int | None, notifier: Notifier, shutdown: Shutdown, lock: NodeLock) -> None:
    config = (await asyncio.to_thread(source)).config
    check_budget(config)
    await asyncio.to_thread(check_oci, config)
    async with AsyncExitStack() as stack:
        switches = stack.enter_context(Switches(config.service.drain_file))
        heartbeat = Heartbeat(notifier)
        heartbeat.status("arming the probes")
        await asyncio.to_thread(lambda: enter_leaf(Cgroups.read()))
        leave_isolated_cpus(await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config)))
        await asyncio.to_thread(find_kubelet)  # it is seen in any proc as long as no capability is given up
        armed = await arm(config, keep=await asyncio.to_thread(drives_runtime, config))
        stack.callback(armed.close)
        status_file = StatusFileOutlet(rates=LiveRates(armed.observatory).read)
        outlets = Outlets([PrometheusOutlet(armed.observatory), JournalOutlet(), SummaryOutlet(), status_file])
        stack.push_async_callback(outlets.close)
        await outlets.start(config)
        parts = await _parts(
            config=config,
            trials=trials,
            armed=armed,
            switches=switches,
            lock=lock,
            heartbeat=heartbeat,
            shutdown=shutdown,
            report=outlets.report,
        )
        await Service(source, config, parts, outlets, shutdown).run()


async def _parts(
    *,
    config: Config,
    trials: int | None,
    armed: ArmedObservers,
    switches: Switches,
    lock: NodeLock,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
    report: Report,
) -> Parts:
    """Open what a daemon remembers: the evidence, and the budget."""
    evidence = await Evidence.open(config)
    boot_id = await asyncio.to_thread(kernel.boot_id)
    guard = NodeGuard(config.guard, config.budget.preset, report)
    return Parts(
        state=DaemonState(Drain(switches, report), guard, EngineBackoff(report), trials),
        switches=switches,
        lock=lock,
        experiments=NodeExperiments(armed, heartbeat.progress, shutdown),
        watch=Watch(armed, evidence, report, config.service.verdict_max_age_s, boot_id),
        ledger=await BudgetLedger.open(config, evidence.history),
        heartbeat=heartbeat,
        report=report,
        now_s=time.monotonic,
        draw=random.random,
    )
