"""The JSON trace format of chrome://tracing, which Perfetto opens, too ("Trace Event Format"). Times are in us.

Each group of tracks is a process of the format, each track a thread. One event is one line.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kickwatch.trace.lanes import Slice
from kickwatch.trace.stack_frames import StackFrames
from kickwatch.trace.tracks import Instant, TimelineTrack

_FIRST_TRACK = 1001  # above the numbers of groups: a thread whose id is its process's would be that process's first


def document(tracks: Sequence[TimelineTrack], frames: StackFrames, begin_ns: int, facts: Mapping[str, Any]) -> bytes:
    """The whole file. Its moment 0 is `begin_ns`, or an earlier one on a track. `facts`: about the run, `otherData`."""
    encode = msgspec.json.encode
    lines = b",\n".join(encode(event) for event in _events(tracks, min((begin_ns, *_moments(tracks)))))
    head = b'{"displayTimeUnit":"ns",\n"otherData":' + encode(dict(facts)) + b',\n"traceEvents":[\n'
    return head + lines + b'\n],\n"stackFrames":' + encode(frames.table) + b"}\n"


def _moments(tracks: Sequence[TimelineTrack]) -> Iterator[int]:
    for track in tracks:
        yield from (instant.at_ns for instant in track.instants)
        for one in track.slices:
            yield from (one.began_ns, *(at_ns for at_ns, _, _ in one.arrows))


def _events(tracks: Sequence[TimelineTrack], origin_ns: int) -> Iterator[dict[str, Any]]:
    groups = {name: number for number, name in enumerate(dict.fromkeys(track.group for track in tracks), 1)}
    for name, pid in groups.items():
        yield _named("process_name", pid, pid, {"name": name})
        yield _named("process_sort_index", pid, pid, {"sort_index": pid})
    for tid, track in enumerate(tracks, _FIRST_TRACK):
        pid = groups[track.group]
        yield _named("thread_name", pid, tid, {"name": track.name})
        yield _named("thread_sort_index", pid, tid, {"sort_index": tid})
        for one in track.slices:
            yield from _slice(one, pid, tid, origin_ns)
        for instant in track.instants:
            yield _instant(instant, pid, tid, origin_ns)


def _named(what: str, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _slice(one: Slice, pid: int, tid: int, origin_ns: int) -> Iterator[dict[str, Any]]:
    event = {"ph": "X", "name": one.name, "cat": one.category, "pid": pid, "tid": tid}
    event |= {"ts": _us(one.began_ns - origin_ns), "dur": _us(one.ended_ns - one.began_ns), "args": one.args}
    yield event if one.frame is None else event | {"sf": str(one.frame)}
    for at_ns, number, begins in one.arrows:
        arrow: dict[str, Any] = {"ph": "s"} if begins else {"ph": "f", "bp": "e"}
        arrow |= {"name": "request", "cat": "request", "id": number, "pid": pid, "tid": tid}
        yield arrow | {"ts": _us(at_ns - origin_ns)}


def _instant(instant: Instant, pid: int, tid: int, origin_ns: int) -> dict[str, Any]:
    event = {"ph": "i", "s": "t", "name": instant.name, "cat": instant.category, "pid": pid, "tid": tid}
    event |= {"ts": _us(instant.at_ns - origin_ns), "args": instant.args}
    return event if instant.frame is None else event | {"sf": str(instant.frame)}


def _us(ns: int) -> float:
    """Microseconds, exact to the nanosecond."""
    return round(ns / 1000, 3)
