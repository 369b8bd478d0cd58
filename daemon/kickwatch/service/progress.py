"""How far the daemon is, for the status file: what it does, what the next trial waits for, guard and budget."""

from kickwatch.configuration.types import Config
from kickwatch.experiment.passive_count import Counted
from kickwatch.node import kernel
from kickwatch.observe.losses import sentences
from kickwatch.outlets.live_status import OthersStatus, Progress, Waiting
from kickwatch.service.parts import Parts


def progress_of(config: Config, parts: Parts) -> Progress:
    """At this moment, under the configuration in force."""
    state, now_s = parts.state, parts.now_s()
    since_s = state.trial_since_s
    waits_for, next_s = (None, None) if since_s is not None else _next_trial(config, parts)
    return Progress(
        doing=parts.heartbeat.doing,
        mode="experiment" if config.workload.enabled else "passive",
        trials_begun=state.trials_begun,
        trial_since_s=None if since_s is None else round(now_s - since_s, 1),
        waits_for=waits_for,
        next_trial_in_s=None if next_s is None else round(next_s, 1),
        engine=str(state.engine) if state.engine is not None else None,
        kernel=kernel.release(),
        cpus_online=parts.experiments.cpus_online,
        losses=tuple(sentences(parts.experiments.losses)),
        guard=state.guard.status(),
        budget=parts.ledger.status(),
        others=state.others,
    )


def others_status(counted: Counted, unknown: str) -> OthersStatus:
    """What passive mode has counted, for the status file. `unknown`: why that are not all."""
    return OthersStatus(
        containers=counted.known,
        containers_at_least=counted.containers if counted.armed else None,
        by_engine=dict(sorted(counted.by_engine.items())),
        unknown=unknown,
    )


def _next_trial(config: Config, parts: Parts) -> tuple[Waiting | None, float | None]:
    """What the next trial waits for, and the seconds until it may begin at the earliest."""
    state = parts.state
    if not config.workload.enabled or not state.more:
        return None, None
    if state.drain.reported:
        return Waiting.DRAIN, None
    if state.backoff.waiting:
        return Waiting.ENGINE, None
    if state.guard.paused:
        return Waiting.GUARD, None
    budget_s = max(
        state.budget_until_s - parts.now_s(), parts.ledger.wait(config.workload.containers_per_trial).seconds
    )
    due_s = max(0.0, state.due_s - parts.now_s())
    return (Waiting.BUDGET, budget_s) if budget_s > due_s else (Waiting.INTERVAL, due_s)
