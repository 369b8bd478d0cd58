"""The events that outlets take: each one thing that happened, frozen.

An event has the figures and texts that outlets show, and nothing that an outlet could change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kickwatch.detect.state import StreamFigures, TrialOutcome
from kickwatch.journal.remark import Remark
from kickwatch.model import Condition, Trial
from kickwatch.node.pressure import Cause
from kickwatch.outlets.belief import Belief
from kickwatch.outlets.live_status import Progress


@dataclass(frozen=True, slots=True)
class OutletEvent:
    """The base class of all events."""


# --- the daemon and its configuration


@dataclass(frozen=True, slots=True)
class Started(OutletEvent):
    """The daemon runs. `observers`, `budget`: names and values; `losses`: names of what cannot be seen."""

    version: str
    kernel: str
    cpus_online: int
    observers: Mapping[str, Any]
    losses: tuple[str, ...]
    config_digest: str
    budget: Mapping[str, Any]
    mode: str


@dataclass(frozen=True, slots=True)
class Reloaded(OutletEvent):
    """A new configuration is in force. `changed`: `key: old -> new` for each key that differs."""

    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadRefused(OutletEvent):
    """The new configuration cannot be used; the old one stays in force."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ConfigWarning(OutletEvent):
    """Something odd in a configuration that is used all the same."""

    what: str


@dataclass(frozen=True, slots=True)
class Beat(OutletEvent):
    """Periodic, between trials and while waiting. `doing`: the status line of systemd.

    `engine_lost`: no engine answers. `budget_unwritten`: the charged containers cannot be written to disk.
    """

    belief: Belief
    doing: str
    engine_lost: bool
    budget_unwritten: bool


@dataclass(frozen=True, slots=True)
class ProgressOpened(OutletEvent):
    """The first session starts. `look` returns how far the daemon is, for outlets that ask during a trial."""

    look: Callable[[], Progress]


# --- evidence and observers


@dataclass(frozen=True, slots=True)
class EvidenceOpened(OutletEvent):
    """The evidence in force from now on, at the start and after a reload.

    `figures`: every stream, as the last trial left it. `believe` returns the current belief, for outlets that are
    asked between two beats.
    """

    figures: Mapping[str, StreamFigures]
    believe: Callable[[], Belief]


@dataclass(frozen=True, slots=True)
class ControlChanged(OutletEvent):
    """The positive control failed after one that passed, or passed after one that failed."""

    passed: bool
    detail: str
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VerdictStale(OutletEvent):
    """The verdict was last confirmed too long ago."""

    verdict_age_s: float


@dataclass(frozen=True, slots=True)
class VerdictFresh(OutletEvent):
    """A stale verdict is confirmed again."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Remarked(OutletEvent):
    """Something a person should know about the set-up; each remark is reported once."""

    remark: Remark


# --- trials


@dataclass(frozen=True, slots=True)
class TrialTaken(OutletEvent):
    """The evidence was updated with a trial, valid or void.

    `recent`: the newest valid trials, this one last, for the figures of an alert. `figures`: every stream after it.
    """

    trial: Trial
    outcome: TrialOutcome
    recent: tuple[Trial, ...]
    verdict_age_s: float | None
    figures: Mapping[str, StreamFigures]


@dataclass(frozen=True, slots=True)
class TrialFailed(OutletEvent):
    """A trial failed as a whole."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SessionFailed(OutletEvent):
    """Something outside a trial failed, such as the warm-up; tried again after `retry_s`."""

    what: str
    remedy: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class ContainersFailed(OutletEvent):
    """Nearly all containers fail, first reported now. `failed` of the `containers` of the newest trial."""

    what: str
    remedy: str
    failed: int
    containers: int


@dataclass(frozen=True, slots=True)
class ContainersRun(OutletEvent):
    """Containers run again."""

    containers: int
    failed: int


@dataclass(frozen=True, slots=True)
class PassiveSummary(OutletEvent):
    """The bill of a period in passive mode: `fields` of `kickwatch.summary`."""

    belief: Belief
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PassiveTaken(OutletEvent):
    """The evidence was updated with a record of passive mode. `recent`, `figures`: as of TrialTaken."""

    outcome: TrialOutcome
    recent: tuple[Trial, ...]
    figures: Mapping[str, StreamFigures]


# --- engine and clean-up


@dataclass(frozen=True, slots=True)
class EngineLost(OutletEvent):
    """No engine answers any more."""

    what: str
    remedy: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class EngineFound(OutletEvent):
    """An engine answers again after `lost_s`, or the engine is another one than before."""

    engine: str
    lost_s: float


@dataclass(frozen=True, slots=True)
class Reaped(OutletEvent):
    """Containers that an earlier kickwatch or trial left were removed."""

    containers: int


@dataclass(frozen=True, slots=True)
class Restored(OutletEvent):
    """Something that another process removed was made again."""

    what: str


# --- why no trial begins


class Off(StrEnum):
    """Why no trials are made, though nothing is wrong."""

    DRAINED = "drained"
    PASSIVE = "passive"


@dataclass(frozen=True, slots=True)
class TrialsOff(OutletEvent):
    """A session starts. `reason`: why it makes no trials; None if it does."""

    reason: Off | None


@dataclass(frozen=True, slots=True)
class Drained(OutletEvent):
    """The node was drained: no containers are started. `by`: `signal` or `file`."""

    by: str


@dataclass(frozen=True, slots=True)
class Undrained(OutletEvent):
    """The drain ended. `by`: what had drained the node."""

    by: str


class PausePhase(StrEnum):
    """Where a pause of the guard stands."""

    BEGAN = "began"
    CONTINUES = "continues"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class GuardPaused(OutletEvent):
    """A decision of the guard during a pause.

    `causes`: all since the pause began. `seconds`: since the decision before, 0 when it began. `paused_s`: length of
    the pause so far. `what`: a sentence with figures.
    """

    phase: PausePhase
    causes: tuple[Cause, ...]
    seconds: float
    paused_s: float
    what: str


@dataclass(frozen=True, slots=True)
class GuardCalm(OutletEvent):
    """The guard does not pause trials, or is off."""
