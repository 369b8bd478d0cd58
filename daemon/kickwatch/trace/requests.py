"""From single events to requests and multi-CPU calls: who sent, to which CPUs, and when the function ran there."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kickwatch.observe.trace_events import BEGINS, MULTI, Kind, TraceEvent
from kickwatch.trace.recording import Edge


@dataclass
class TracedRequest:
    """One request. `ran`: when the target began to run the function, and when it returned from it, if that was seen."""

    sent: TraceEvent
    ran: tuple[int, int] | None = None


@dataclass
class Call:
    """One multi-CPU call, or one single request. `begun`: its first request is in `requests`, else only a rest is."""

    multi: bool
    begun: bool = True
    requests: list[TracedRequest] = field(default_factory=list)

    @property
    def sent(self) -> TraceEvent:
        """The first request."""
        return self.requests[0].sent


def calls_between(events: Iterable[TraceEvent], first: Edge, last: Edge) -> list[Call]:
    """Every call whose requests were counted between the two edges, in the order in which they were sent.

    The functions at the targets may run after the last edge.
    """
    ordered = sorted(events, key=lambda event: event.at_ns)
    requests = [TracedRequest(event) for event in ordered if event.kind == Kind.REQUEST]
    _match(requests, ordered)
    within = [request for request in requests if not first.is_before(request.sent) and last.is_before(request.sent)]
    by_sender: dict[int, list[TracedRequest]] = defaultdict(list)
    for request in within:
        by_sender[request.sent.cpu].append(request)
    calls = [call for sent in by_sender.values() for call in _grouped(sent)]
    return sorted(calls, key=lambda call: call.sent.at_ns)


def first_of_their_cpu(events: Iterable[TraceEvent], calls: Iterable[Call]) -> int:
    """How many of the multi-CPU calls are the first of their sending CPU since the trace was armed.

    The counting probe was armed before. It takes such a call for the rest of an earlier one if that was of the same
    kind, to lower CPUs (begins_call() in csd.h).
    """
    firsts: dict[int, int] = {}
    for event in sorted(events, key=lambda event: event.at_ns):
        if event.kind == Kind.REQUEST and event.flags & MULTI:
            firsts.setdefault(event.cpu, event.at_ns)
    return sum(call.multi and firsts[call.sent.cpu] == call.sent.at_ns for call in calls)


def _grouped(requests: Sequence[TracedRequest]) -> Iterator[Call]:
    """The calls of one sending CPU. The probe tells where one begins; what does not fit had a lost begin."""
    open_call: Call | None = None
    for request in requests:
        flags = request.sent.flags
        if not flags & MULTI:
            yield Call(multi=False, requests=[request])
        elif open_call is None or flags & BEGINS or not _continues(open_call, request.sent):
            open_call = Call(multi=True, begun=bool(flags & BEGINS), requests=[request])
            yield open_call
        else:
            open_call.requests.append(request)


def _continues(call: Call, sent: TraceEvent) -> bool:
    latest = call.requests[-1].sent
    return (latest.func, latest.target < sent.target) == (sent.func, True)


def _match(requests: Sequence[TracedRequest], ordered: Sequence[TraceEvent]) -> None:
    """Find when each function ran. A csd is queued again only after its target took it, so the latest request counts.

    An older one without an entry ran together with others (wakeups are taken as one list): its time is not known.
    """
    waiting: dict[tuple[int, int], TracedRequest] = {}
    running: dict[tuple[int, int], tuple[TracedRequest, int]] = {}
    upcoming = iter(requests)
    for event in ordered:
        key = (event.csd, event.cpu)
        if event.kind == Kind.REQUEST:
            waiting[event.csd, event.target] = next(upcoming)
        elif event.kind == Kind.ENTRY and (taken := waiting.pop(key, None)) and taken.sent.func == event.func:
            running[key] = (taken, event.at_ns)
        elif event.kind == Kind.EXIT and (left := running.pop(key, None)):
            left[0].ran = (left[1], event.at_ns)
