"""What the monitor knows between two trials (State), and what it says about one (TrialOutcome, Change)."""

from enum import StrEnum

import msgspec

from kickwatch.detect.comparison import Comparison
from kickwatch.detect.quiet import QuietEvidence
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.track import Track
from kickwatch.detect.wager import Wealth
from kickwatch.model import AlarmKind, Verdict


class ChangeKind(StrEnum):
    """How an alarm changed. `joined` and `left`: one stream more or less, while the alarm holds."""

    RAISED = "raised"
    JOINED = "joined"
    LEFT = "left"
    ENDED = "ended"
    DROPPED = "dropped"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an alarm, and why, in a sentence. `stream` is a stream's name, or the cell of a regression.

    The names in JSON are those of earlier releases.
    """

    kind: ChangeKind
    alarm: AlarmKind = msgspec.field(name="condition")
    stream: str
    text: str
    evidence: str = ""
    threshold: float = 0.0
    first_trial: str = ""
    observations: int = 0
    hits: int = msgspec.field(name="loud", default=0)


class TrialOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial says, given all trials before it.

    `restart_reason`: why all evidence was dropped before it; empty where it was kept. `more_containers`: how many more
    without a broadcast establish quiet; None where something else is missing.
    """

    trial: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    restart_reason: str = msgspec.field(name="anew", default="")
    more_containers: int | None = None


class ZeroTrials(msgspec.Struct, frozen=True):
    """Trials in a row with zeros only. `counts`: how many zeros each stream observed in each of these trials."""

    counts: tuple[tuple[StreamName, int], ...]
    trials: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the next trial's verdict depends on. `containers`: observed since the evidence began.

    Most trials have zeros only. While no stream has an alarm or an onset (`calm`) they are counted, in `zeros`, and
    added to the evidence together once something else comes: equal to the last bit (`Monitor.flush_zeros`).

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
    zeros: ZeroTrials | None = None
    quiet: QuietEvidence = QuietEvidence()
    comparison: Comparison | None = None
    epoch: int = 0
    published: dict[StreamName, Wealth] = {}
    published_since_unix_s: float = 0.0  # when the first trial began that is in `published`; 0 before there was one

    @property
    def release(self) -> str:
        """The kernel release that all evidence is about, also the published; empty before the first trial."""
        return self.comparison.record.stratum.kernel if self.comparison else ""

    @property
    def alerted(self) -> dict[AlarmKind, tuple[str, ...]]:
        """The alarms that hold, in a fixed order, each with the streams or cells that raised it."""
        found: dict[AlarmKind, list[str]] = {}
        for name, track in self.tracks.items():
            if track.watched.alerted:
                found.setdefault(STREAMS[name].alarm, []).append(name.value)
        for rule in self.comparison.rules if self.comparison else ():
            if rule.track and rule.track.watched.alerted:
                found.setdefault(AlarmKind.REGRESSED, []).append(rule.cell)
        return {alarm: tuple(found[alarm]) for alarm in AlarmKind if alarm in found} if found else {}


class StreamFigures(msgspec.Struct, frozen=True):
    """A stream as metrics and `status` show it. `e_process` is since the common epoch, for pooling over a fleet."""

    alerted: bool
    evidence: float  # capped at 1e300
    threshold: float
    e_process: float
