"""Reads a file in the JSON trace format as Perfetto and chrome://tracing do, and refuses what they would show wrongly.

The rules are those of the "Trace Event Format": every track has a name; slices of one track nest; every arrow begins
and ends inside a slice, once, and forwards in time; every stack resolves to its outermost frame.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

_METADATA = {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}
Track = tuple[int, int]


@dataclass
class TraceFile:
    """A file that keeps the rules. `tracks`: (group, name) by (pid, tid); `slices`: complete events by track."""

    facts: dict[str, Any]
    tracks: dict[Track, tuple[str, str]] = field(default_factory=dict)
    slices: dict[Track, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    instants: list[dict[str, Any]] = field(default_factory=list)
    arrows: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    frames: dict[str, dict[str, Any]] = field(default_factory=dict)

    def named(self, category: str) -> list[dict[str, Any]]:
        """All slices of a category."""
        return [one for slices in self.slices.values() for one in slices if one["cat"] == category]

    def stack(self, event: dict[str, Any]) -> list[str]:
        """Function names, innermost first."""
        names, at = [], event.get("sf")
        while at is not None:
            names.append(self.frames[at]["name"])
            at = self.frames[at].get("parent")
            assert len(names) <= len(self.frames), "the frames have a circle"
        return names

    def group(self, event: dict[str, Any]) -> str:
        """The group of the event's track."""
        return self.tracks[event["pid"], event["tid"]][0]


def read_trace(content: bytes) -> TraceFile:
    """Raises AssertionError with the rule that the file breaks."""
    whole = json.loads(content)
    events: list[dict[str, Any]] = whole["traceEvents"]
    assert whole["displayTimeUnit"] in {"ms", "ns"}
    read = TraceFile(whole["otherData"], frames=whole["stackFrames"])
    _name_tracks(read, events)
    ends: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for event in events:
        _check(read, event)
        if event["ph"] == "X":
            read.slices[event["pid"], event["tid"]].append(event)
        elif event["ph"] == "i":
            read.instants.append(event)
        elif event["ph"] in "sf":
            assert event["ph"] not in ends[event["id"]], f"two ends of arrow {event['id']}"
            ends[event["id"]][event["ph"]] = event
    for slices in read.slices.values():
        _nest(slices)
    for number, both in ends.items():
        assert set(both) == {"s", "f"}, f"arrow {number} has one end only"
        assert both["s"]["ts"] <= both["f"]["ts"], f"arrow {number} runs backwards"
        read.arrows.append((_enclosing(read, both["s"]), _enclosing(read, both["f"])))
    return read


def _name_tracks(read: TraceFile, events: list[dict[str, Any]]) -> None:
    named = {event["name"]: event for event in events if event["ph"] == "M"}
    assert set(named) <= _METADATA
    groups = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name" and e["ph"] == "M"}
    threads = [event for event in events if event["name"] == "thread_name" and event["ph"] == "M"]
    read.tracks = {(e["pid"], e["tid"]): (groups[e["pid"]], e["args"]["name"]) for e in threads}
    assert len(read.tracks) == len(threads), "a track has two names"


def _check(read: TraceFile, event: dict[str, Any]) -> None:
    assert event["ph"] in {"M", "X", "i", "s", "f"}, event
    if event["ph"] == "M":
        return
    assert (event["pid"], event["tid"]) in read.tracks, f"no such track: {event}"
    assert event["name"]
    assert event["cat"]
    assert isinstance(event["ts"], float | int)
    assert event["ts"] >= 0, event
    if event["ph"] == "X":
        assert event["dur"] >= 0, event
    if event["ph"] == "i":
        assert event["s"] in {"t", "p", "g"}
    if event["ph"] == "f":
        assert event["bp"] == "e"
    assert "sf" not in event or read.stack(event)


def _nest(slices: list[dict[str, Any]]) -> None:
    still_open: list[int] = []
    for began, ended in sorted(map(_span, slices), key=lambda span: (span[0], -span[1])):
        while still_open and still_open[-1] <= began:
            still_open.pop()
        assert not still_open or ended <= still_open[-1], f"a slice at {began} ns overlaps another one in part"
        still_open.append(ended)


def _span(event: dict[str, Any]) -> tuple[int, int]:
    """ns"""
    began = round(event["ts"] * 1000)
    return began, began + round(event["dur"] * 1000)


def _enclosing(read: TraceFile, arrow: dict[str, Any]) -> dict[str, Any]:
    at = round(arrow["ts"] * 1000)
    around = [one for one in read.slices[arrow["pid"], arrow["tid"]] if _span(one)[0] <= at <= _span(one)[1]]
    assert around, f"an arrow begins or ends outside of every slice: {arrow}"
    return min(around, key=lambda one: one["dur"])
