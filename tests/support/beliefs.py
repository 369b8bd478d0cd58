"""What a daemon may believe, for outlets."""

from typing import Any

from kickwatch.model import Condition
from kickwatch.outlets.belief import Belief


def believing(**changed: Any) -> Belief:
    """The belief of a daemon that is quiet, with these changes."""
    usual: dict[str, Any] = {
        "condition": Condition.QUIET,
        "reasons": (),
        "verdict_age_s": 1.0,
        "more_containers": None,
        "control_passed": True,
        "alerted": {},
        "trials": 0,
        "containers": 0,
        "published_since_unix_s": 0.0,
        "history_kept": True,
    }
    return Belief(**{**usual, **changed})
