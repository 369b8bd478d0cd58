"""How far a run has come: its phase, the containers done, and how long it will probably still take."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class RunPhase(StrEnum):
    """The phases of a run, in their order, in words for a person."""

    SETUP = "engine, probes, control"
    CONTAINERS = "measuring"
    QUIET = "without containers"
    CANARY = "memory cgroups"
    CLEANUP = "removing everything"


@dataclass(frozen=True)
class RunStep:
    """One step. `text`: a line for where no bar is drawn; empty if it is not worth one.

    `done` of `total` containers of this trial. `left_s`: to the end of the trial, None while that is not known.
    """

    phase: RunPhase
    text: str = ""
    done: int = 0
    total: int = 0
    left_s: float | None = None


Progress = Callable[[RunStep], None]


def texts_to(tell: Callable[[str], object]) -> Progress:
    """Progress as lines of text: the steps that have one."""

    def report(step: RunStep) -> None:
        if step.text:
            tell(step.text)

    return report
