"""Evidence that turns out to be none: the canary's, once its counters are known to include remote wakeups.

Releases that did not know whether idle CPUs halt (`node.idle_cpus_halt`) took wakeups for broadcasts. Such counters are
no observation any more, so no later trial could end the alarm that they had raised.
"""

from msgspec.structs import replace

from kickwatch.detect import track as tracks
from kickwatch.detect.examine import Examined
from kickwatch.detect.state import Change, ChangeKind, State
from kickwatch.detect.streams import STREAMS, StreamName
from kickwatch.detect.verdict import VerdictReason

_WHY = "not known any more: without a probe, the counters include remote wakeups on this node"


def without_wakeups(state: State, seen: Examined) -> tuple[State, tuple[Change, ...]]:
    """The state without what such counters have shown, and the alarm that is given up with it."""
    track = state.tracks.get(StreamName.CANARY)
    includes = seen.counters and VerdictReason.WAKEUPS_COUNTED.value in seen.doubts
    if not includes or track is None or tracks.is_calm(track):
        return state, ()
    kept = {name: one for name, one in state.tracks.items() if name is not StreamName.CANARY}
    published = {name: one for name, one in state.published.items() if name is not StreamName.CANARY}
    fresh = replace(state, tracks=kept, published=published, calm=all(map(tracks.is_calm, kept.values())))
    if not track.watched.alerted:
        return fresh, ()
    alarm = STREAMS[StreamName.CANARY].alarm
    kind = ChangeKind.LEFT if alarm in fresh.alerted else ChangeKind.DROPPED
    return fresh, (Change(kind=kind, alarm=alarm, stream=StreamName.CANARY.value, text=_WHY),)
