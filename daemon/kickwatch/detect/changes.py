"""From the turns of single streams to changes of conditions: the first stream raises one, the last one ends it."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from kickwatch.detect import sentences as words
from kickwatch.detect.comparison import Comparison, RelativeRule
from kickwatch.detect.state import Change, ChangeKind, State
from kickwatch.detect.streams import Stream
from kickwatch.detect.track import Turn
from kickwatch.model import AlarmKind


def of_stream(stream: Stream, turn: Turn, *, counters: bool) -> Change:
    """The turn of one stream. `counters`: no probe attributes, so the canary heard CAL - TLB."""
    text = words.raised(stream, turn, counters=counters) if turn.raised else words.ended(stream, turn)
    return _turned(stream.alarm, stream.name.value, turn, text)


def of_rule(comparison: Comparison, rule: RelativeRule, turn: Turn) -> Change:
    """The turn of one cell that is compared with its record."""
    if not turn.raised:
        return _turned(AlarmKind.REGRESSED, rule.cell, turn, words.fallen(rule.cell, turn))
    since = comparison.record.stratum.changes_since(comparison.against) if comparison.against else ""
    bound = rule.null.mean if rule.null else 0.0
    text = words.risen(rule.cell, turn, before=rule.before, bound=bound, since=since)
    return _turned(AlarmKind.REGRESSED, rule.cell, turn, text)


def dropped(state: State, why: str) -> tuple[Change, ...]:
    """What is no longer known to hold when the evidence begins anew."""
    text = f"no longer known to hold, since the evidence begins anew: {why}"
    return tuple(
        Change(kind=ChangeKind.DROPPED, condition=condition, stream=", ".join(streams), text=text)
        for condition, streams in state.alerted.items()
    )


def of_conditions(before: Mapping[AlarmKind, Sequence[str]], turns: Sequence[Change]) -> tuple[Change, ...]:
    """The turns with their kinds set: `raised` only for the first stream of a condition, `ended` for its last one."""
    if not turns:
        return ()
    alerted = {condition: set(streams) for condition, streams in before.items()}
    changes = []
    for turn in turns:
        streams = alerted.setdefault(turn.condition, set())
        if turn.kind is ChangeKind.RAISED:
            kind = ChangeKind.JOINED if streams else ChangeKind.RAISED
            streams.add(turn.stream)
        else:
            streams.discard(turn.stream)
            kind = ChangeKind.LEFT if streams else ChangeKind.ENDED
        changes.append(replace(turn, kind=kind))
    return tuple(changes)


def _turned(condition: AlarmKind, stream: str, turn: Turn, text: str) -> Change:
    return Change(
        kind=ChangeKind.RAISED if turn.raised else ChangeKind.ENDED,
        condition=condition,
        stream=stream,
        text=text,
        evidence=turn.evidence,
        threshold=turn.threshold,
        first_trial=turn.onset.trial,
        observations=turn.onset.observations,
        loud=turn.onset.loud,
    )
