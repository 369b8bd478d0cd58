"""What the monitor knows between two trials, and what it says of one: State, Outcome, Change."""

from enum import StrEnum

import msgspec

from kickwatch.detect.comparison import Comparison
from kickwatch.detect.quiet import Silence
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.track import Track
from kickwatch.detect.wager import Wealth
from kickwatch.model import AlarmKind, Verdict


class ChangeKind(StrEnum):
    """How a condition changed. `joined` and `left`: one more or one less of its streams, while it lasts."""

    RAISED = "raised"
    JOINED = "joined"
    LEFT = "left"
    ENDED = "ended"
    DROPPED = "dropped"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a condition, and why in plain words. `stream` is a stream's name, or the cell of a regression."""

    kind: ChangeKind
    condition: AlarmKind
    stream: str
    text: str
    evidence: str = ""
    threshold: float = 0.0
    first_trial: str = ""
    observations: int = 0
    loud: int = 0


class TrialOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial says, given all before it. `anew`: why all evidence was dropped before it, if it was.

    `more_containers`: silent ones still missing until silence is established; None where something else is missing.
    """

    trial: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    anew: str = ""
    more_containers: int | None = None


class SilentTrials(msgspec.Struct, frozen=True):
    """Trials in a row in which every stream that heard something heard zeros: so many of them each time."""

    heard: tuple[tuple[StreamName, int], ...]
    trials: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the next trial's verdict depends on. `containers`: watched since the evidence began.

    Most trials are silent. While no stream is alerted or has an onset (`calm`) they are only counted, in `silent`, and
    added to the evidence together once something else comes: equal to the last bit (`Monitor.flush_silence`).

    `reasons` are those of `verdict`; `looked_unix_s`: when the last trial began that could establish something.
    """

    boot_id: str = ""
    trials: int = 0
    voids: int = 0
    containers: int = 0
    verdict: Verdict = Verdict.UNKNOWN
    reasons: tuple[str, ...] = ()
    more_containers: int | None = None
    looked_unix_s: float = 0.0
    tracks: dict[StreamName, Track] = {}
    calm: bool = True
    silent: SilentTrials | None = None
    silence: Silence = Silence()
    comparison: Comparison | None = None
    epoch: int = 0
    published: dict[StreamName, Wealth] = {}
    published_since_unix_s: float = 0.0  # when the trial began with which they begin; 0 before there was one

    @property
    def alerted(self) -> dict[AlarmKind, tuple[str, ...]]:
        """The conditions that hold, in a fixed order, each with the streams or cells that are alerted."""
        found: dict[AlarmKind, list[str]] = {}
        for name, track in self.tracks.items():
            if track.watched.alerted:
                found.setdefault(STREAMS[name].alarm, []).append(name.value)
        for rule in self.comparison.rules if self.comparison else ():
            if rule.track and rule.track.watched.alerted:
                found.setdefault(AlarmKind.REGRESSED, []).append(rule.cell)
        return {condition: tuple(found[condition]) for condition in AlarmKind if condition in found} if found else {}


class Figures(msgspec.Struct, frozen=True):
    """A stream as metrics and `status` show it. `e_process` is since the common epoch, for pooling over a fleet."""

    alerted: bool
    evidence: float  # capped at 1e300
    threshold: float
    e_process: float
