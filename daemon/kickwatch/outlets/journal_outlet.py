"""The journal as an outlet: which event is logged how, with which fields."""

from functools import singledispatch

from kickwatch.configuration.types import Config
from kickwatch.detect.figures import counted, known_creation_broadcasts
from kickwatch.journal.alert import log
from kickwatch.journal.journal import Event, configure_logging, logger
from kickwatch.journal.remarks import alert_of
from kickwatch.outlets import events
from kickwatch.outlets.belief import rounded
from kickwatch.outlets.changes import alerts
from kickwatch.outlets.outlet import PlainOutlet

_MOST_FAILURES = 3  # texts of failed containers in one record


class JournalOutlet(PlainOutlet):
    """Writes log records."""

    async def start(self, config: Config) -> None:
        """Log as configured."""
        configure_logging(form=config.log.format, level=config.log.level)

    async def reload(self, config: Config) -> None:
        """Log as configured."""
        await self.start(config)

    async def take(self, event: events.OutletEvent) -> None:
        """Log it, if it is an event of the log."""
        _log(event)


@singledispatch
def _log(_: events.OutletEvent) -> None:
    """Events without a function below are not logged."""


@_log.register
def _started(event: events.Started) -> None:
    logger().info(
        Event.STARTED,
        version=event.version,
        kernel=event.kernel,
        cpus_online=event.cpus_online,
        observers=event.observers,
        losses=list(event.losses),
        config_digest=event.config_digest,
        budget=event.budget,
        mode=event.mode,
    )


@_log.register
def _reloaded(event: events.Reloaded) -> None:
    logger().info(Event.RELOADED, changed=list(event.changed))


@_log.register
def _reload_refused(event: events.ReloadRefused) -> None:
    logger().error(Event.RELOAD_REFUSED, what=event.what, remedy=event.remedy)


@_log.register
def _config_warning(event: events.ConfigWarning) -> None:
    logger().warning(Event.CONFIG_WARNING, what=event.what)


@_log.register
def _control_changed(event: events.ControlChanged) -> None:
    if event.passed:
        logger().info(Event.OBSERVER_SEES, what=event.detail, cpus=list(event.cpus))
    else:
        logger().error(Event.OBSERVER_BLIND, what=event.detail, cpus=list(event.cpus))


@_log.register
def _verdict_stale(event: events.VerdictStale) -> None:
    what = f"the last trial that established something began {event.verdict_age_s:.0f} s ago"
    remedy = "find out why no trials run: kickwatch status shows what the daemon waits for"
    logger().warning(Event.VERDICT_STALE, what=what, remedy=remedy, verdict_age_s=rounded(event.verdict_age_s))


@_log.register
def _verdict_fresh(event: events.VerdictFresh) -> None:
    logger().info(Event.VERDICT_FRESH, condition=event.condition)


@_log.register
def _remarked(event: events.Remarked) -> None:
    log(alert_of(event.remark))


@_log.register
def _trial_taken(event: events.TrialTaken) -> None:
    if event.trial.void:
        logger().warning(Event.TRIAL_VOID, trial=event.trial.trial_id, reason=event.trial.void)
        return
    _trial_finished(event)
    for alert in alerts(event.outcome, event.recent):
        log(alert)


@_log.register
def _passive_taken(event: events.PassiveTaken) -> None:
    for alert in alerts(event.outcome, event.recent) if event.recent else ():
        log(alert)


def _trial_finished(event: events.TrialTaken) -> None:
    trial, outcome = event.trial, event.outcome
    logger().info(
        Event.TRIAL_FINISHED,
        trial=trial.trial_id,
        verdict=outcome.verdict.value,
        reasons=list(outcome.reasons),
        findings=list(outcome.findings),
        containers=len(counted(trial)),
        failures=[container.failure for container in trial.containers if container.failure][:_MOST_FAILURES],
        failed=len(trial.containers) - len(counted(trial)),
        creation_path_broadcasts=known_creation_broadcasts(trial),
        more_containers=outcome.more_containers,
        seed=trial.seed,
        order=list(trial.order),
        pairs=len(trial.pairs),
        pairs_outlasted=sum(pair.outlasted for pair in trial.pairs),
        kmem_accounting=trial.kmem_accounting.value,
        verdict_age_s=rounded(event.verdict_age_s),
    )


@_log.register
def _trial_failed(event: events.TrialFailed) -> None:
    logger().error(Event.TRIAL_FAILED, what=event.what, remedy=event.remedy)


@_log.register
def _session_failed(event: events.SessionFailed) -> None:
    logger().error(Event.TRIAL_FAILED, what=event.what, remedy=event.remedy, retry_s=event.retry_s)


@_log.register
def _containers_failed(event: events.ContainersFailed) -> None:
    logger().warning(
        Event.CONTAINERS_FAILED,
        what=event.what,
        remedy=event.remedy,
        failed=event.failed,
        containers=event.containers,
    )


@_log.register
def _containers_run(event: events.ContainersRun) -> None:
    logger().info(Event.CONTAINERS_RUN, containers=event.containers, failed=event.failed)


@_log.register
def _engine_lost(event: events.EngineLost) -> None:
    logger().error(Event.ENGINE_LOST, what=event.what, remedy=event.remedy, retry_s=event.retry_s)


@_log.register
def _engine_found(event: events.EngineFound) -> None:
    logger().info(Event.ENGINE_FOUND, engine=event.engine, lost_s=event.lost_s)


@_log.register
def _restored(event: events.Restored) -> None:
    logger().info(Event.RESTORED, what=event.what)


@_log.register
def _drained(event: events.Drained) -> None:
    logger().info(Event.DRAINED, by=event.by)


@_log.register
def _undrained(event: events.Undrained) -> None:
    logger().info(Event.UNDRAINED, by=event.by)


@_log.register
def _guard_paused(event: events.GuardPaused) -> None:
    if event.phase is events.PausePhase.BEGAN:
        reasons = [cause.value for cause in event.causes]
        logger().warning(Event.PAUSED, reasons=reasons, what=event.what)
    elif event.phase is events.PausePhase.ENDED:
        logger().info(Event.RESUMED, paused_s=round(event.paused_s, 1))
