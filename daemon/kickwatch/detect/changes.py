"""From the turns of single streams to changes of alarms: the first stream raises an alarm, the last one ends it."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from kickwatch.detect import sentences
from kickwatch.detect.comparison import Comparison, RelativeRule
from kickwatch.detect.state import Change, ChangeKind, State
from kickwatch.detect.streams import Stream
from kickwatch.detect.track import Turn
from kickwatch.model import AlarmKind


def of_stream(stream: Stream, turn: Turn, beside: sentences.Beside) -> Change:
    """The turn of one stream."""
    text = sentences.raised(stream, turn, beside) if turn.raised else sentences.ended(stream, turn)
    return _turned(stream.alarm, stream.name.value, turn, text)


def of_rule(comparison: Comparison, rule: RelativeRule, turn: Turn) -> Change:
    """The turn of one cell that is compared with its record."""
    if not turn.raised:
        return _turned(AlarmKind.REGRESSED, rule.cell, turn, sentences.fallen(rule.cell, turn))
    since = comparison.record.stratum.changes_since(comparison.against) if comparison.against else ""
    bound = rule.null.mean if rule.null else 0.0
    text = sentences.risen(rule.cell, turn, before=rule.before, bound=bound, since=since)
    return _turned(AlarmKind.REGRESSED, rule.cell, turn, text)


def dropped(state: State, why: str) -> tuple[Change, ...]:
    """The alarms that are given up because all evidence is dropped."""
    text = f"not known any more, since all evidence was dropped: {why}"
    return tuple(
        Change(kind=ChangeKind.DROPPED, alarm=alarm, stream=", ".join(streams), text=text)
        for alarm, streams in state.alerted.items()
    )


def of_alarms(before: Mapping[AlarmKind, Sequence[str]], turns: Sequence[Change]) -> tuple[Change, ...]:
    """The turns with their kinds set: `raised` only for the first stream of an alarm, `ended` for its last one."""
    if not turns:
        return ()
    alerted = {alarm: set(streams) for alarm, streams in before.items()}
    changes = []
    for turn in turns:
        streams = alerted.setdefault(turn.alarm, set())
        if turn.kind is ChangeKind.RAISED:
            kind = ChangeKind.JOINED if streams else ChangeKind.RAISED
            streams.add(turn.stream)
        else:
            streams.discard(turn.stream)
            kind = ChangeKind.LEFT if streams else ChangeKind.ENDED
        changes.append(replace(turn, kind=kind))
    return tuple(changes)


def _turned(alarm: AlarmKind, stream: str, turn: Turn, text: str) -> Change:
    return Change(
        kind=ChangeKind.RAISED if turn.raised else ChangeKind.ENDED,
        alarm=alarm,
        stream=stream,
        text=text,
        evidence=turn.evidence,
        threshold=turn.threshold,
        first_trial=turn.onset.trial,
        observations=turn.onset.observations,
        hits=turn.onset.hits,
    )
