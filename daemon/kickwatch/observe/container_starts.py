"""From cgroups that come and go to containers that were started: each once, in however many hierarchies. Pure.

Two things identify a container:

- The name of its cgroup, where an engine gave it one that the table knows (`container_paths`). A container is started
  when its first cgroup is made, and may be started again once its last one is gone. `docker exec` makes no cgroup. The
  removal may go unseen (an event without room, a cgroup of v1 that stays): then another run of a runtime starts it
  again, or, after events were lost, any cgroup with its name that comes later than those of one start.
- The run of a runtime, where the name tells nothing (`runc run web` makes `/web`, `ctr` makes `/default/web`). A
  runtime makes one container each time it is executed. It may make parents first, so it counts once it has made none
  for a second.

Times are of the monotonic clock: the wall clock has no part in it.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from kickwatch.attribution.container_paths import container_of, identity_of, is_below

SETTLE_NS = 1_000_000_000
_MOST_RUNS = 8192
_MOST_LIVE = 65_536


class CgroupEventKind(IntEnum):
    """`enum container_event_kind` of containers.bpf.c."""

    MKDIR = 1
    RMDIR = 2


class CgroupEvent(NamedTuple):
    """A cgroup was made or removed. `run`: identifies the run of the runtime that made it; 0 for any other program."""

    at_ns: int
    kind: int
    path: str
    run: int = 0
    comm: str = ""


@dataclass
class _Run:
    """A runtime that made cgroups. `counted`: its container is, or it is not for us to count."""

    comm: str
    last_ns: int
    counted: bool = False


@dataclass
class _Live:
    """A container that has cgroups, in all hierarchies. `run`: of the runtime that made one of them; 0 if none did."""

    last_ns: int
    cgroups: int = 0
    run: int = 0


def _is_part(path: str) -> bool:
    """True for the cgroup that crun makes inside the one that systemd made for the container."""
    parent, _, leaf = path.rpartition("/")
    return leaf == "container" and container_of(parent) is not None


@dataclass
class StartLedger:
    """Counts. `started`: containers by engine; `own`: names of cgroups whose containers do not count."""

    own: Collection[str] = ()
    started: Counter[str] = field(default_factory=Counter)
    pending: int = 0  # runs of runtimes that may turn out to be containers
    _live: OrderedDict[str, _Live] = field(default_factory=OrderedDict)
    _runs: OrderedDict[int, _Run] = field(default_factory=OrderedDict)
    _lost_ns: int = 0  # events were lost before that

    @property
    def total(self) -> int:
        """Containers started so far."""
        return self.started.total()

    def take(self, events: Iterable[CgroupEvent], now_ns: int) -> None:
        """Add events, oldest first, all that happened before `now_ns` and were not added yet."""
        for event in events:
            if not is_below(event.path, self.own):
                self._made(event) if event.kind == CgroupEventKind.MKDIR else self._removed(event)
            elif event.run:
                self._runs[event.run] = _Run(event.comm, event.at_ns, counted=True)
        self._settle(now_ns)

    def lost(self, before_ns: int) -> None:
        """Events before that time were lost: containers that seem to be there may have gone."""
        self._lost_ns = before_ns

    def _made(self, event: CgroupEvent) -> None:
        found = container_of(event.path)
        run = self._run_of(event) if event.run else None
        if found is None:
            if run is not None and _is_part(event.path):
                run.counted = True
            return
        if run is not None:
            run.counted = True
        identity = identity_of(found, event.path)
        live = self._live.get(identity)
        if live is None or self._again(live, event):
            self.started[found.engine] += 1
            live = self._live[identity] = _Live(event.at_ns)
        live.cgroups, live.last_ns, live.run = live.cgroups + 1, event.at_ns, live.run or event.run
        if len(self._live) > _MOST_LIVE:
            self._live.popitem(last=False)

    def _again(self, live: _Live, event: CgroupEvent) -> bool:
        """Whether a container whose cgroups were not all seen to go is started again."""
        if event.at_ns - live.last_ns < SETTLE_NS:
            return False
        return live.last_ns < self._lost_ns or (event.run != live.run and bool(event.run and live.run))

    def _run_of(self, event: CgroupEvent) -> _Run:
        run = self._runs.setdefault(event.run, _Run(event.comm, event.at_ns))
        run.last_ns = event.at_ns
        return run

    def _removed(self, event: CgroupEvent) -> None:
        found = container_of(event.path)
        live = self._live.get(identity_of(found, event.path)) if found is not None else None
        if found is None or live is None:
            return
        live.cgroups -= 1
        if live.cgroups <= 0:
            del self._live[identity_of(found, event.path)]

    def _settle(self, now_ns: int) -> None:
        self.pending = 0
        for run in self._runs.values():
            if not run.counted and now_ns - run.last_ns >= SETTLE_NS:
                run.counted = True
                self.started[run.comm or "other"] += 1
            self.pending += not run.counted
        while len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)
