"""What the daemon believes of this node at one moment, as outlets show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kickwatch.model import AlarmKind, Condition


@dataclass(frozen=True, slots=True)
class Belief:
    """The condition, and what it rests on.

    `reasons`: why the condition is unknown. `verdict_age_s`: seconds since a trial last established something; None
    before the first that did. `more_containers`: containers without broadcasts still needed for `quiet`; None if
    something else is missing. `alerted`: the alarms that hold, each with its streams or cells. `trials` and
    `containers`: since the evidence began. `published_since_unix_s`: start of the e-processes, 0 before.
    `history_kept`: the newest trial is in the history. `release`: the kernel release that the evidence is about; empty
    before the first trial.
    """

    condition: Condition
    reasons: tuple[str, ...]
    verdict_age_s: float | None
    more_containers: int | None
    control_passed: bool
    alerted: Mapping[AlarmKind, tuple[str, ...]]
    trials: int
    containers: int
    published_since_unix_s: float
    history_kept: bool
    release: str = ""


def belief_fields(belief: Belief) -> dict[str, Any]:
    """The first keys of `kickwatch.summary`."""
    return {
        "condition": belief.condition,
        "reasons": list(belief.reasons),
        "verdict_age_s": rounded(belief.verdict_age_s),
        "more_containers": belief.more_containers,
    }


def rounded(seconds: float | None) -> float | None:
    """Seconds as a log record shows them: one decimal."""
    return None if seconds is None else round(seconds, 1)
