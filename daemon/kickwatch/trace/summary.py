"""The trace of a recording: the file within its limit of size, and whether the timeline agrees with the count."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kickwatch.trace.chrome import document
from kickwatch.trace.recording import Recording
from kickwatch.trace.requests import Call, calls_between, first_of_their_cpu
from kickwatch.trace.tracks import Tracks

MOST_BYTES = 20 << 20


@dataclass
class Trace:
    """One trace. `content`: the file. `left_out`: functions whose requests did not fit, with their number.

    `firsts`: multi-CPU calls that the counting probe may rightly not have counted, as of `first_of_their_cpu`.
    """

    recording: Recording
    calls: list[Call]
    content: bytes = b""
    left_out: dict[str, int] = field(default_factory=dict)
    firsts: int = 0

    @property
    def calls_shown(self) -> int:
        """Multi-CPU calls on the timeline."""
        return sum(call.multi and call.begun for call in self.calls)

    @property
    def requests_shown(self) -> int:
        """Requests that were listed in the counted span."""
        return sum(len(call.requests) for call in self.calls)

    @property
    def calls_counted(self) -> int:
        """Multi-CPU calls that the counting probe counted in the same span."""
        return sum(cell.calls for cell in self.recording.window.cells)

    @property
    def requests_counted(self) -> int:
        """Requests that the counting probe counted in the same span."""
        return sum(cell.requests for cell in self.recording.window.cells)

    @property
    def faults(self) -> list[str]:
        """Why the trace is not complete, each in one sentence; empty if it is."""
        recording, losses = self.recording, self.recording.losses
        found = [f"container {each.index} failed: {each.failure}" for each in recording.containers if each.failure]
        if not recording.control.passed:
            found.append(f"the positive control failed, so counts prove nothing: {recording.control.detail}")
        if losses.events:
            kinds = ", ".join(f"{number} {kind.name.lower()}" for kind, number in losses.by_kind.items())
            skipped = f"{losses.skipped} sent by an interrupt while the probe ran" if losses.skipped else ""
            found.append(f"{losses.events} events were lost ({', '.join(filter(None, (kinds, skipped)))})")
        if not 0 < self.calls_shown - self.calls_counted <= self.firsts:
            found += self._difference("multi-CPU calls", self.calls_shown, self.calls_counted, losses.calls)
        lost = losses.skipped + sum(number for kind, number in losses.by_kind.items() if kind.name == "REQUEST")
        return found + self._difference("requests", self.requests_shown, self.requests_counted, lost)

    def _difference(self, what: str, shown: int, counted: int, lost: int) -> list[str]:
        if shown == counted:
            return []
        text = f"{shown} {what} on the timeline, {counted} on the bill"
        if 0 < counted - shown <= lost:
            return [f"{text}: explained by the lost events"]
        if self.recording.window.lost_events:
            return [f"{text}: the counting probe lost {self.recording.window.lost_events} events"]
        return [f"{text}: not explained; report it"]

    def facts(self) -> dict[str, Any]:
        """About the run, for the file."""
        recording = self.recording
        return {
            "kickwatch_trace": 1,
            "kernel": recording.node.kernel,
            "architecture": recording.node.arch,
            "cpus_online": recording.node.cpus_online,
            "engine": recording.node.engine,
            "cgroup": recording.node.cgroup,
            "containers": len(recording.containers),
            "calls_on_timeline": self.calls_shown,
            "calls_on_bill": self.calls_counted,
            "requests_on_timeline": self.requests_shown,
            "requests_on_bill": self.requests_counted,
            "requests_without_time_on_target": sum(
                request.ran is None for call in self.calls for request in call.requests
            ),
            "lost_events": recording.losses.events,
            "lost_calls": recording.losses.calls,
            "slab_mutex_waits": "listed" if recording.waits_known else "not known: the address of slab_mutex is not",
            "left_out": self.left_out,
            "complete": not self.faults,
            "faults": self.faults,
            "notes": list(recording.notes),
        }


def make_trace(recording: Recording, most_bytes: int = MOST_BYTES) -> Trace:
    """Write the file in memory. If it is too large, the requests of the most frequent functions are left out of it.

    Every multi-CPU call stays, without its targets if its function is left out.
    """
    trace = Trace(recording, calls_between(recording.events, recording.first, recording.last))
    trace.firsts = first_of_their_cpu(recording.events, trace.calls)
    by_func = Counter(call.sent.func for call in trace.calls for _ in call.requests)
    left_out: set[int] = set()
    for func, requests in [*by_func.most_common(), (None, 0)]:
        tracks = Tracks(recording, trace.calls, left_out)
        trace.content = document(tracks.all(), tracks.frames, recording.first.began_ns, trace.facts())
        if len(trace.content) <= most_bytes or func is None:
            break
        left_out.add(func)
        trace.left_out[recording.function(func)] = requests
    return trace
