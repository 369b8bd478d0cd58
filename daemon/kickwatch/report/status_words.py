"""The running daemon in words: the same in `kickwatch status` and `kickwatch watch`. Pure; times are arguments."""

from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import AlarmKind, Condition
from kickwatch.outlets.live_status import GuardReading, Progress, Waiting
from kickwatch.outlets.status import Status
from kickwatch.report import passive_words
from kickwatch.report.passive_words import is_passive, needs_trials

NOT_KNOWN = "not known"
EARLIER_VERSION = f"{NOT_KNOWN} (the daemon is of an earlier version)"
_LATE_S = 20.0  # the daemon writes every 5 s
_MEANINGS = {
    Condition.QUIET: "creating containers does not make the kernel interrupt all CPUs",
    Condition.BROADCASTING: "CREATING CONTAINERS MAKES THE KERNEL INTERRUPT ALL CPUs",
    Condition.CONTENDED: "no broadcasts, but tasks wait for slab_mutex",
    Condition.UNKNOWN: "kickwatch cannot say whether creating containers interrupts all CPUs",
}
_REASONS = {
    VerdictReason.INSUFFICIENT_EVIDENCE: "too little evidence yet",
    VerdictReason.TOO_FEW_CONTAINERS: "too few containers yet",
    VerdictReason.CONTAINERS_FAILED: "the containers fail; the log says why",
    VerdictReason.STALE: "no trial has confirmed the verdict for too long",
    VerdictReason.KMEM_ACCOUNTING_OFF: "kernel memory accounting is off",
    VerdictReason.KMEM_ACCOUNTING_UNKNOWN: "it is not known whether kernel memory accounting is on",
    VerdictReason.BLIND: "the observers failed their positive control: `kickwatch doctor --control`",
    VerdictReason.WAKEUPS_COUNTED: "no probe, and the counters include remote wakeups here: `kickwatch doctor`",
    VerdictReason.EVENTS_LOST: "the observers lost events",
    VerdictReason.ONE_CPU: "one CPU only: there is none to interrupt",
    VerdictReason.DISTURBED: "something outside disturbed the trials",
    VerdictReason.BROADCASTS_ELSEWHERE: "broadcasts from outside the creation path, undecided who causes them",
}
_ALARMS = {
    AlarmKind.BROADCASTING: "the creation path broadcasts",
    AlarmKind.CONTENDED: "tasks wait for slab_mutex",
    AlarmKind.DESTROYING: "removing containers broadcasts",
    AlarmKind.EXCESSIVE: "more broadcasts or requests than healthy kernels send",
    AlarmKind.ELSEWHERE: "broadcasts from elsewhere come with containers",
    AlarmKind.ISOLATION: "requests to isolated CPUs come with containers",
    AlarmKind.REGRESSED: "more than under the kernel before",
}

_EVENTS = {  # as in outlets/changes.py, which loads more than `status` needs
    AlarmKind.BROADCASTING: "broadcast_detected",
    AlarmKind.CONTENDED: "contention_detected",
    AlarmKind.DESTROYING: "destroy_detected",
    AlarmKind.EXCESSIVE: "excess_detected",
    AlarmKind.ELSEWHERE: "elsewhere_detected",
    AlarmKind.ISOLATION: "isolation_broken",
    AlarmKind.REGRESSED: "regression_detected",
}


def duration(seconds: float) -> str:
    """`3 d 4 h`, `12 min`, `5 s`: a span in its largest one or two units."""
    seconds = max(0, round(seconds))
    for unit_s, unit, smaller_s, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} {seconds % unit_s // smaller_s} {smaller}"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


def meaning(condition: Condition) -> str:
    """What the condition says of the node."""
    return _MEANINGS[condition]


def reason(word: str) -> str:
    """A reason of `unknown`, for people; the word itself if it is of a later version."""
    return _REASONS[VerdictReason(word)] if word in set(_REASONS) else word.replace("_", " ")


def doing(status: Status) -> str:
    """What the daemon does, without the condition, which is shown beside it and may have changed since.

    The status line of a trial stays until the daemon decides what comes next.
    """
    first, _, rest = status.doing.partition("; ")
    text = rest if rest and first in set(Condition) else status.doing
    ended = status.progress is not None and status.progress.trial_since_s is None and text.startswith("trial ")
    return "a trial has ended" if ended else text


def many(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def why(status: Status) -> str:
    """Why the condition is unknown; empty if it is not."""
    words = (passive_words.NEVER_QUIET if needs_trials(status, word) else reason(word) for word in status.reasons)
    return "; ".join(dict.fromkeys(words))


def needed(status: Status) -> str:
    """How many containers `quiet` still needs; empty if something else is missing, or nothing is."""
    return f"quiet needs {status.more_containers} more containers without a broadcast" if status.more_containers else ""


def alerts(status: Status) -> list[str]:
    """Each alarm that holds: `the creation path broadcasts (attributed, signature)`."""
    return [
        f"{_ALARMS[AlarmKind(alarm)] if alarm in set(_ALARMS) else alarm} ({', '.join(streams)})"
        for alarm, streams in status.alerts.items()
    ]


def next_step(status: Status) -> str:
    """The command that shows the first alert with its stack, and what to do; empty without one."""
    events = [_EVENTS[AlarmKind(alarm)] for alarm in status.alerts if alarm in set(_ALARMS)]
    return f"next: journalctl -x KICKWATCH_EVENT=kickwatch.{events[0]} -n 1" if events else ""


def confirmed(status: Status, now_unix_s: float) -> str:
    """When a trial last established something."""
    if status.verdict_age_s is None:
        return "not confirmed by any trial yet"
    return f"last confirmed by a trial {duration(status.verdict_age_s + now_unix_s - status.updated_unix_s)} ago"


def late(status: Status, now_unix_s: float) -> bool:
    """True if the daemon should have written its status again. An earlier version writes none during a trial."""
    return status.progress is not None and now_unix_s - status.updated_unix_s > _LATE_S


def next_trial(progress: Progress | None, since_update_s: float) -> str:
    """When the next trial begins, or what it waits for; during a trial how long that has been running."""
    if progress is None:
        return f"next trial: {EARLIER_VERSION}"
    if progress.mode == "passive":
        return "no trials: passive mode starts no containers"
    if progress.trial_since_s is not None:
        return f"running for {duration(progress.trial_since_s + since_update_s)}"
    return f"next trial {_waiting(progress, since_update_s)}"


def _waiting(progress: Progress, since_update_s: float) -> str:
    match progress.waits_for:
        case Waiting.DRAIN:
            return "when the drain ends"
        case Waiting.ENGINE:
            return "when a container engine answers"
        case Waiting.GUARD:
            return "when the node is calm again"
    if progress.next_trial_in_s is None:
        return NOT_KNOWN
    left_s = progress.next_trial_in_s - since_update_s
    if left_s < 1:
        return "due now"
    why = ", when the budget allows it" if progress.waits_for is Waiting.BUDGET else " at the earliest"
    return f"in {duration(left_s)}{why}"


def guard(status: Status) -> str:
    """`paused: ...`, `calm`, or that there is none."""
    found = status.progress.guard if status.progress is not None else None
    if found is None:
        return EARLIER_VERSION
    if is_passive(status):
        return passive_words.GUARD
    if found.paused:
        return f"trials are paused: {found.what}"
    if found.age_s is None:
        return f"{NOT_KNOWN} (it has not looked: drained, disabled, or just started)"
    if not found.readings:
        return "disabled by the configuration"
    return "calm"


def guard_reading(one: GuardReading) -> str:
    """`load 0.31 per CPU (limit 4)`; for a minimum `at least`."""
    unit = f" {one.unit}" if one.unit else ""
    bound = "at least" if one.floor else "at most"
    value = NOT_KNOWN if one.value is None else f"{round(one.value, 1):.10g}{unit}"
    return f"{one.name} {value} ({bound} {one.limit:.10g})"


def budget(status: Status) -> str:
    """Containers of the last hour and day, and the CPU share."""
    found = status.progress.budget if status.progress is not None else None
    if found is None:
        return EARLIER_VERSION
    share = NOT_KNOWN if found.cpu_share is None else f"{100 * found.cpu_share:.2g} %"
    if is_passive(status):
        return f"{passive_words.NOT_LIMITED}; CPU {share}"
    spent = [f"{one.used}{f'/{one.most}' if one.most else ''} per {one.window}" for one in found.containers]
    if all(one.most is None for one in found.containers):
        spent.append("no limit")
    most = "no limit" if found.cpu_share_most is None else f"limit {100 * found.cpu_share_most:.10g} %"
    return f"containers {', '.join(spent)}; CPU {share} ({most})"


def slab_mutex(status: Status) -> str:
    """Waits for the mutex: in the latest trial, or period of passive mode, and now."""
    trial, rates = status.trial, status.rates
    span = "latest period" if (trial is not None and not trial.trial_id) or is_passive(status) else "latest trial"
    if trial is None:
        latest = f"{span}: {NOT_KNOWN}"
    elif trial.slab_mutex_waits is None:
        latest = f"{span}: {NOT_KNOWN} (not observed, or lost)"
    elif not trial.slab_mutex_waits:
        latest = f"nobody waited in the {span}"
    else:
        longest = NOT_KNOWN if trial.slab_mutex_longest_ms is None else f"{trial.slab_mutex_longest_ms:.3g} ms"
        total = NOT_KNOWN if trial.slab_mutex_wait_ms is None else f"{trial.slab_mutex_wait_ms:.3g} ms"
        latest = f"{trial.slab_mutex_waits} waits in the {span} ({total} in all, longest {longest})"
    if rates is None or rates.waits is None:
        return f"{latest}; now {NOT_KNOWN}"
    return f"{latest}; now {rates.waits:.3g} waits per second" if rates.waits else f"{latest}; nobody waits now"
