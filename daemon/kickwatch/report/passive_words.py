"""A passive daemon in words: it starts nothing, so trials, guard and budget do not apply to it. Pure."""

from kickwatch.detect.streams import StreamName
from kickwatch.detect.verdict import VerdictReason
from kickwatch.outlets.live_status import OthersStatus
from kickwatch.outlets.status import Status

OBSERVING = (StreamName.ATTRIBUTED, StreamName.SIGNATURE)  # the others compare with quiet windows, which nobody makes
NEVER_QUIET = "passive mode raises alerts, and nothing in it can establish `quiet`"
NOT_LIMITED = "no limit applies"
GUARD = "off: there are no trials to pause"
_NO_EVIDENCE = {VerdictReason.INSUFFICIENT_EVIDENCE, VerdictReason.TOO_FEW_CONTAINERS}


def is_passive(status: Status) -> bool:
    """True if the daemon is in passive mode; an earlier version does not say so."""
    return status.progress is not None and status.progress.mode == "passive"


def needs_trials(status: Status, reason: str) -> bool:
    """True if the reason is that evidence is missing which only trials bring, and there are none."""
    return is_passive(status) and reason in _NO_EVIDENCE


def evidence(status: Status) -> str:
    """What the evidence rests on."""
    if status.containers:  # of trials before passive mode
        return f"{status.trials} trials and records, {status.containers} containers of trials since the evidence began"
    return f"{status.trials} record{'' if status.trials == 1 else 's'} of passive mode since the evidence began"


def others(found: OthersStatus | None, *, remedy: bool = True) -> str:
    """`9 since the daemon's start (docker 7, runc 2)`: a number only where all or some were counted.

    `remedy`: with what helps where they are not known.
    """
    if found is None:
        return "not known: not counted yet"
    if found.containers_at_least is None:
        return f"not known: {found.unknown if remedy else found.unknown.partition('; fix: ')[0]}"
    each = ", ".join(f"{name} {number}" for name, number in found.by_engine.items())
    least = "" if found.containers is not None else "at least "
    counted = f"{least}{found.containers_at_least} since the daemon's start{f' ({each})' if each else ''}"
    return f"{counted}: {found.unknown}" if found.unknown else counted
