"""What the daemon believes after a trial: the verdict with its reasons, and when `quiet` has to be established again.

Pure.
"""

from kickwatch.detect.examine import Examined
from kickwatch.detect.quiet import FAILED_TRIALS, STANDING, SUSPICIOUS, SUSPICIOUS_COIN, QuietTest
from kickwatch.detect.state import Change, State, TrialOutcome
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.track import Track
from kickwatch.detect.verdict import VerdictReason
from kickwatch.model import AlarmKind, Verdict

MOST_EVIDENCE = 1e300  # evidence is compared and shown as a double
# While one of these alarms holds, no container counts towards `quiet`; counting begins when the alarm ends.
_FORBIDS_QUIET = frozenset({AlarmKind.BROADCASTING, AlarmKind.ELSEWHERE})
# Each of these alarms would end `quiet`, and so does evidence that grows in one of their streams before it is an alarm.
_WOULD_END_QUIET = frozenset({AlarmKind.BROADCASTING, AlarmKind.CONTENDED, AlarmKind.ELSEWHERE})


def outcome_of(
    state: State, seen: Examined, test: QuietTest, changes: tuple[Change, ...], restart_reason: str
) -> TrialOutcome:
    """What a valid trial says, given the state after it."""
    alerted, missing = state.alerted, None
    verdict, reasons = Verdict.UNKNOWN, _doubts(state, seen)
    if AlarmKind.BROADCASTING in alerted:
        verdict, reasons = Verdict.BROADCASTING, _reasons_of(alerted[AlarmKind.BROADCASTING], counters=seen.counters)
    elif not reasons and not state.quiet.established:
        reasons, missing = (VerdictReason.INSUFFICIENT_EVIDENCE.value,), test.needs(state.quiet)
    elif not reasons and _suspicion_stands(state):
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
        restart_reason=restart_reason,
        more_containers=missing,
    )


def ends_quiet(before: State, after: State) -> bool:
    """Whether quiet has to be established again after a trial: an alarm holds, or a stream's evidence rose too far."""
    return _rose(before, after) or not _FORBIDS_QUIET.isdisjoint(after.alerted)


def evidence_of(track: Track | None) -> float:
    """The evidence for an alarm, at most 1e300."""
    return track.watched.alarm.total().capped(MOST_EVIDENCE) if track else 0.0


def _rose(before: State, after: State) -> bool:
    """Whether the evidence of a stream rose, to well above rest."""
    return after.tracks is not before.tracks and any(
        track.watched.alarm.reaches(SUSPICIOUS_COIN if STREAMS[name].coin else SUSPICIOUS)
        and evidence_of(track) > evidence_of(before.tracks.get(name))
        for name, track in after.tracks.items()
        if STREAMS[name].alarm in _WOULD_END_QUIET
    )


def _suspicion_stands(state: State) -> bool:
    """Whether some evidence is so high that `quiet` is not believed beside it.

    The evidence of a stream whose alarm holds does not count: it stays as it was at the alarm.
    """
    return not state.calm and any(
        STREAMS[name].alarm in _WOULD_END_QUIET and not track.watched.alerted and track.watched.alarm.reaches(STANDING)
        for name, track in state.tracks.items()
    )


def _doubts(state: State, seen: Examined) -> tuple[str, ...]:
    """Why nothing is known, whatever the evidence for `quiet`."""
    if state.quiet.failed >= FAILED_TRIALS:
        return (VerdictReason.CONTAINERS_FAILED.value,)
    if seen.doubts:
        return seen.doubts
    elsewhere = state.quiet.elsewhere or AlarmKind.ELSEWHERE in state.alerted
    return (VerdictReason.BROADCASTS_ELSEWHERE.value,) if elsewhere else ()


def _reasons_of(streams: tuple[str, ...], *, counters: bool) -> tuple[str, ...]:
    """Why the verdict is broadcasting, in the words that the verdict of one run uses."""
    rows = [STREAMS[StreamName(name)] for name in streams]
    reasons = [row.reason_by_counters if counters and row.reason_by_counters else row.reason for row in rows]
    return tuple(dict.fromkeys(reason.value for reason in reasons if reason))
