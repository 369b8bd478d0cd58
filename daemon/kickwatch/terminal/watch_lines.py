"""`kickwatch watch` where there is no terminal: one line for each change. Pure.

A line has no figure that changes by itself, such as an age: otherwise each look would be a change.
"""

import time

from kickwatch.outlets.live_status import TrialStatus, Waiting
from kickwatch.outlets.status import Presence, Status
from kickwatch.report import status_words as words
from kickwatch.terminal.watch_parts import plain
from kickwatch.terminal.watch_view import View

_NOTHING, _GO_ON = "none", "go on"
_HELD = {Waiting.DRAIN: "none while the node is drained", Waiting.ENGINE: "none until a container engine answers"}


def changes(before: View | None, view: View) -> list[str]:
    """A line for each topic that is not as before; at the first look all that there is to say."""
    known = topics(before) if before is not None else {}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(view.now_unix_s))
    first = not known
    return [
        plain(f"{stamp} {topic}: {said}")
        for topic, said in topics(view).items()
        if known.get(topic) != said and not (said in {_NOTHING, _GO_ON} and (first or topic not in known))
    ]


def topics(view: View) -> dict[str, str]:
    """What there is to say, by topic."""
    status = view.status
    if status is None:
        return {"daemon": _not_running(view)}
    progress = status.progress
    said = {
        "daemon": f"running: {_identity(status)}",
        "condition": f"{status.condition}: {words.meaning(status.condition)}{_because(status)}",
        "alerts": "; ".join(words.alerts(status)) or _NOTHING,
        "control of the observers": {True: "passed", False: "FAILED", None: words.NOT_KNOWN}[status.control_passed],
    }
    if progress is not None:
        paused = progress.guard is not None and progress.guard.paused
        causes = [] if progress.guard is None else [one.name for one in progress.guard.readings if one.exceeded]
        said["guard"] = (
            (f"trials are paused: {', '.join(causes)}" if causes else "trials are paused") if paused else _NOTHING
        )
        said["engine"] = progress.engine or _NOTHING
        said["trials"] = _HELD.get(progress.waits_for, _GO_ON) if progress.waits_for is not None else _GO_ON
        said["cannot see"] = "; ".join(progress.losses or ()) or _NOTHING
    if status.trial is not None:
        said["trial"] = _trial(status.trial)
    if status.void_trial is not None:
        said["void trial"] = f"{status.void_trial.trial_id}: {', '.join(status.void_trial.void)}"
    return said


def _not_running(view: View) -> str:
    if view.sight.presence is Presence.OTHER:
        return f"not running: another kickwatch (pid {view.sight.holder}) holds this node; it is starting, or one trial"
    if view.last is None:
        return f"not running; last state {words.NOT_KNOWN}"
    left = f"{view.last.condition} ({view.last.doing}, pid {view.last.pid})"
    if view.seen_until_unix_s is None:
        return f"not running; it was {left}"
    seen = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(view.seen_until_unix_s))
    return f"not running since {seen}; it was {left}"


def _identity(status: Status) -> str:
    progress = status.progress
    facts = [f"kickwatch {status.version}", f"pid {status.pid}"]
    if progress is not None:
        facts += [f"Linux {progress.kernel}"] if progress.kernel else []
    return ", ".join(facts)


def _because(status: Status) -> str:
    return f" ({words.why(status)})" if status.reasons else ""


def _trial(trial: TrialStatus) -> str:
    broadcasts, waits = trial.creation_path_broadcasts_per_container, trial.slab_mutex_waits
    return (
        f"{trial.trial_id or 'period'}: {_known(trial.containers)} containers,"
        f"{f' {_known(trial.failed)} failed,' if trial.trial_id else ''}"
        f" {_known(broadcasts)} creation-path broadcasts per container, {_known(waits)} waits for slab_mutex"
    )


def _known(figure: float | None) -> str:
    return words.NOT_KNOWN if figure is None else f"{figure:.4g}"
