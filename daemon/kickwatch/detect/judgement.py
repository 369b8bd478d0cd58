"""What the daemon believes after a trial: the verdict with its reasons, and when `quiet` has to be established again.

Pure.
"""

from kickwatch.detect.examine import Examined
from kickwatch.detect.quiet import FAILED_TRIALS, STANDING, SUSPICIOUS, SUSPICIOUS_COIN, SilenceTest
from kickwatch.detect.state import Change, State, TrialOutcome
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.track import Track
from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import AlarmKind, Verdict

MOST_EVIDENCE = 1e300  # evidence is compared and shown as a double
# While one of these holds nothing is silent, however long it holds; silence begins with its end.
_ENDS_SILENCE = frozenset({AlarmKind.BROADCASTING, AlarmKind.ELSEWHERE})
# An alarm of these would end `quiet`, so evidence that grows there does so before it is one.
_ENDS_QUIET = frozenset({AlarmKind.BROADCASTING, AlarmKind.CONTENDED, AlarmKind.ELSEWHERE})


def outcome_of(state: State, seen: Examined, test: SilenceTest, changes: tuple[Change, ...], anew: str) -> TrialOutcome:
    """What a valid trial says, given the state after it."""
    alerted, missing = state.alerted, None
    verdict, reasons = Verdict.UNKNOWN, _doubts(state, seen)
    if AlarmKind.BROADCASTING in alerted:
        verdict, reasons = Verdict.BROADCASTING, _guilty(alerted[AlarmKind.BROADCASTING], counters=seen.counters)
    elif not reasons and not state.silence.established:
        reasons, missing = (VerdictReason.INSUFFICIENT_EVIDENCE.value,), test.needs(state.silence)
    elif not reasons and _stands(state):
        reasons = (VerdictReason.INSUFFICIENT_EVIDENCE.value,)
    elif not reasons:
        verdict = Verdict.QUIET
    findings = tuple(alarm.value for alarm in alerted if alarm is not AlarmKind.BROADCASTING)
    return TrialOutcome(
        trial=seen.trial,
        verdict=verdict,
        reasons=reasons,
        findings=(*findings, *seen.findings),
        changes=changes,
        anew=anew,
        more_containers=missing,
    )


def ends_silence(before: State, after: State) -> bool:
    """Whether silence has to be established again after a trial: it raised a stream's evidence well above rest."""
    return _rose(before, after) or not _ENDS_SILENCE.isdisjoint(after.alerted)


def evidence_of(track: Track | None) -> float:
    """The evidence for an alarm, at most 1e300."""
    return track.watched.alarm.total().capped(MOST_EVIDENCE) if track else 0.0


def _rose(before: State, after: State) -> bool:
    return after.tracks is not before.tracks and any(
        track.watched.alarm.reaches(SUSPICIOUS_COIN if STREAMS[name].coin else SUSPICIOUS)
        and evidence_of(track) > evidence_of(before.tracks.get(name))
        for name, track in after.tracks.items()
        if STREAMS[name].alarm in _ENDS_QUIET
    )


def _stands(state: State) -> bool:
    """Whether evidence stands so high that no silence counts beside it. That of an alarm stands still: it is known."""
    return not state.calm and any(
        STREAMS[name].alarm in _ENDS_QUIET and not track.watched.alerted and track.watched.alarm.reaches(STANDING)
        for name, track in state.tracks.items()
    )


def _doubts(state: State, seen: Examined) -> tuple[str, ...]:
    """Why nothing is known, whatever the evidence for silence."""
    if state.silence.failed >= FAILED_TRIALS:
        return (VerdictReason.CONTAINERS_FAILED.value,)
    if seen.doubts:
        return seen.doubts
    elsewhere = state.silence.elsewhere or AlarmKind.ELSEWHERE in state.alerted
    return (VerdictReason.BROADCASTS_ELSEWHERE.value,) if elsewhere else ()


def _guilty(streams: tuple[str, ...], *, counters: bool) -> tuple[str, ...]:
    """Why the verdict is broadcasting, in the words of the one-trial verdict."""
    rows = [STREAMS[StreamName(name)] for name in streams]
    reasons = [row.reason_by_counters if counters and row.reason_by_counters else row.reason for row in rows]
    return tuple(dict.fromkeys(reason.value for reason in reasons if reason))
