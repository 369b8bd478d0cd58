"""The timeline's tracks: the containers' lives, programs, what each CPU sent and ran, and waits for slab_mutex."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

from kickwatch.attribution.attribute import attribute
from kickwatch.attribution.reasons import mask_follows_task
from kickwatch.attribution.stacks import top_of_stack
from kickwatch.model import on_creation_path
from kickwatch.observe.requests import broadcast_targets
from kickwatch.observe.trace_events import UNDER_SLAB_MUTEX, Kind, TraceEvent
from kickwatch.trace.lanes import Slice, lanes
from kickwatch.trace.recording import Recording
from kickwatch.trace.requests import Call, TracedRequest
from kickwatch.trace.stack_frames import StackFrames
from kickwatch.trace.tasks import is_engine, is_ours, task_name

CONTAINERS, PROGRAMS, MUTEX = "containers", "programs of the engine and the containers", "slab_mutex"


@dataclass
class Instant:
    """Something without a duration, or with one that is not known."""

    name: str
    at_ns: int
    category: str
    args: dict[str, Any] = field(default_factory=dict)
    frame: int | None = None


@dataclass
class TimelineTrack:
    """One line of the timeline, in a group of lines."""

    group: str
    name: str
    slices: list[Slice] = field(default_factory=list)
    instants: list[Instant] = field(default_factory=list)


@dataclass
class Tracks:
    """Makes the tracks of one recording. `left_out`: functions whose requests are not shown one by one."""

    recording: Recording
    calls: Sequence[Call]
    left_out: Collection[int] = ()
    frames: StackFrames = field(default_factory=StackFrames)
    _arrow: Iterator[int] = field(default_factory=lambda: count(1))
    _meanings: dict[tuple[int, int], tuple[dict[str, Any], bool]] = field(default_factory=dict)

    def all(self) -> list[TimelineTrack]:
        """Every track, in the order in which they are shown."""
        return [*self._lives(), *self._programs(), *self._waits(), *self._cpus()]

    def _lives(self) -> Iterator[TimelineTrack]:
        for index in sorted({step.container for step in self.recording.steps}):
            steps = [step for step in self.recording.steps if step.container == index]
            life = Slice(f"container {index}", steps[0].began_ns, steps[-1].ended_ns, "container")
            calls = [
                Slice(step.name, step.began_ns, step.ended_ns, "engine", {"failed": True} if step.failed else {})
                for step in steps
            ]
            yield TimelineTrack(CONTAINERS, f"container {index}", [life, *calls])
        if groups := [made for event in self.recording.events if (made := self._cgroup(event))]:
            yield TimelineTrack(CONTAINERS, "cgroups", instants=groups)

    def _cgroup(self, event: TraceEvent) -> Instant | None:
        """None for cgroups that are not ours: their names are not shown."""
        if event.kind not in (Kind.MKDIR, Kind.RMDIR):
            return None
        parent, path = self.recording.cgroup_parent.strip("/"), event.text
        for index, name in self.recording.ids.items():
            path = path.replace(name, f"<container {index}>")
        if path == event.text and parent not in path.split("/"):
            return None
        what = "mkdir" if event.kind == Kind.MKDIR else "rmdir"
        args = {"path": path, "cpu": event.cpu, "task": task_name(event.comm)}
        return Instant(f"cgroup {what}", event.at_ns, "cgroup", args)

    def _programs(self) -> Iterator[TimelineTrack]:
        by_pid: dict[int, list[TraceEvent]] = defaultdict(list)
        for event in sorted(self.recording.events, key=lambda each: each.at_ns):
            if event.kind in (Kind.EXEC, Kind.END) and (is_engine(event.comm) or self._container_of(event) is not None):
                by_pid[event.pid].append(event)
        slices = [program for pid, events in by_pid.items() for program in self._lifetimes(pid, events)]
        for number, lane in enumerate(lanes(slices), 1):
            yield TimelineTrack(PROGRAMS, f"programs {number}", lane)

    def _lifetimes(self, pid: int, events: Sequence[TraceEvent]) -> Iterator[Slice]:
        """From each exec to the next one, or to the exit. A process that was not seen to exec has no slice."""
        after = [*events[1:], None]
        for event, following in zip(events, after, strict=True):
            if event.kind != Kind.EXEC:
                continue
            args: dict[str, Any] = {"pid": pid}
            container = self._container_of(event)
            if container is not None:
                args["container"] = container
            if following is None:
                args["end"] = "not seen: it still ran"
            yield Slice(event.comm, event.at_ns, following.at_ns if following else self._end_ns, "process", args)

    def _container_of(self, event: TraceEvent) -> int | None:
        """The container in which the process runs; None for none of ours.

        Our own program may end before its cgroup was looked at. Its name, and when it ran, tell the container, too.
        """
        if event.pid in self.recording.own_pids or not is_ours(event.comm):
            return self.recording.own_pids.get(event.pid)
        lives = {step.container: step for step in self.recording.steps if step.name == "start"}
        return max((index for index, start in lives.items() if start.began_ns <= event.at_ns), default=None)

    @cached_property
    def _end_ns(self) -> int:
        """When the recording ends. Events are listed for a moment after the counted span has ended."""
        return max((self.recording.last.ended_ns, *(event.at_ns for event in self.recording.events)))

    def _waits(self) -> Iterator[TimelineTrack]:
        begun: dict[int, TraceEvent] = {}
        slices = []
        for event in sorted(self.recording.events, key=lambda each: each.at_ns):
            if event.kind == Kind.WAIT:
                begun.setdefault(event.tid, event)  # a waiter that spins and sleeps begins more than once
            elif event.kind == Kind.TAKEN and (since := begun.pop(event.tid, None)):
                slices.append(self._wait(since, event.at_ns))
        slices += [self._wait(since, self._end_ns, ended=False) for since in begun.values()]
        for number, lane in enumerate(lanes(slices), 1):
            yield TimelineTrack(MUTEX, f"waiters {number}", lane)

    def _wait(self, since: TraceEvent, until_ns: int, *, ended: bool = True) -> Slice:
        stack = self.recording.stack(since.stack)
        args = {"waiter": task_name(since.comm), "holder": task_name(since.text) if since.text else "not known"}
        args |= {"in": top_of_stack(stack), "stack": " < ".join(stack)}
        if not ended:
            args["end"] = "not seen: it still waited"
        return Slice("waits for slab_mutex", since.at_ns, until_ns, "slab_mutex", args, self.frames.of(stack))

    def _cpus(self) -> Iterator[TimelineTrack]:
        sent: dict[int, list[Slice]] = defaultdict(list)
        unknown: dict[int, list[Instant]] = defaultdict(list)
        ran: dict[int, list[Slice]] = defaultdict(list)
        for call in self.calls:
            if call.sent.func in self.left_out and not call.multi:
                continue
            self._show(call, sent, unknown, ran)
        for cpu in sorted({*self.recording.cpus, *sent, *unknown, *ran}):
            group = f"CPU {cpu}"
            rows = lanes(sent[cpu]) or [[]]
            for number, lane in enumerate(rows):
                name = "sends" if number == 0 else f"sends, meanwhile {number}"
                yield TimelineTrack(group, name, lane, unknown[cpu] if number == 0 else [])
            for number, lane in enumerate(lanes(ran[cpu])):
                yield TimelineTrack(
                    group, "runs for others" if number == 0 else f"runs for others, inside {number}", lane
                )

    def _show(
        self, call: Call, sent: dict[int, list[Slice]], unknown: dict[int, list[Instant]], ran: dict[int, list[Slice]]
    ) -> None:
        first, args, frame = call.sent, *self._described(call)
        ends = [request.ran[1] if call.multi else request.ran[0] for request in call.requests if request.ran]
        if not ends and not call.multi:
            args["target"] = f"CPU {first.target}; when it ran there is not known"
            unknown[first.cpu].append(Instant(args["reason"], first.at_ns, "single", args, frame))
            return
        if not call.multi:
            args["target"] = f"CPU {first.target}"
        latest = max(*ends, call.requests[-1].sent.at_ns) if ends else call.requests[-1].sent.at_ns
        name = f"{args['reason']} call" if call.multi else args["reason"]
        row = Slice(name, first.at_ns, latest, "call" if call.multi else "single", args, frame)
        sent[first.cpu].append(row)
        if first.func not in self.left_out:
            for request in call.requests:
                self._target(row, request, args, ran)

    def _target(self, row: Slice, request: TracedRequest, args: dict[str, Any], ran: dict[int, list[Slice]]) -> None:
        """The slice on the target, and the arrow to it. None where it is not known when the function ran."""
        if request.ran is None:
            return
        arrow = next(self._arrow)
        row.arrows.append((request.sent.at_ns, arrow, True))
        origin = {"sender": f"CPU {request.sent.cpu}", "reason": args["reason"], "origin": args["origin"]}
        there = Slice(args["function"], *request.ran, "target", origin, arrows=[(request.ran[0], arrow, False)])
        ran[request.sent.target].append(there)

    def _described(self, call: Call) -> tuple[dict[str, Any], int | None]:
        event, requests = call.sent, len(call.requests)
        stack = self.recording.stack(event.stack)
        meaning, on_path = self._meaning(event)
        args = meaning | {"task": task_name(event.comm)}
        if call.multi:
            args |= {"targets": requests, "stack": " < ".join(stack)}
            enough = requests >= broadcast_targets(len(self.recording.cpus))
            if enough and not mask_follows_task(meaning["function"]):
                args |= {"broadcast": True, "creation path": on_path}
            if not call.begun:
                args["begin"] = "not listed: only the rest of a call"
        if event.flags & UNDER_SLAB_MUTEX:
            args["under slab_mutex"] = True
        return args, self.frames.of(stack)

    def _meaning(self, event: TraceEvent) -> tuple[dict[str, Any], bool]:
        """What function and stack mean, and whether that is the creation path."""
        known = self._meanings.get((event.func, event.stack))
        if known is None:
            function, stack = self.recording.function(event.func), self.recording.stack(event.stack)
            found = attribute(function, stack)
            meaning = {
                "reason": found.reason,
                "origin": found.origin.value,
                "path": found.path.value,
                "function": function,
                "asked in": top_of_stack(stack) or "not known: no stack",
            }
            known = self._meanings[event.func, event.stack] = meaning, on_creation_path(found.origin, found.path)
        return known
