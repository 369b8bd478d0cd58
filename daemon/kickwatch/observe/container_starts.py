"""From cgroups that come and go to containers that were started: each once, in however many hierarchies. Pure.

Two things identify a container:

- The name of its cgroup, where an engine gave it one that the table knows (`container_paths`). A container is started
  when its first cgroup is made, and may be started again once its last one is gone. `docker exec` makes no cgroup.
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

from kickwatch.attribution.container_paths import container_of, is_below

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


def _is_part(path: str) -> bool:
    """True for the cgroup that crun makes inside the one that systemd made for the container."""
    parent, _, leaf = path.rpartition("/")
    return leaf == "container" and container_of(parent) is not None


@dataclass
class StartLedger:
    """Counts. `started`: containers by engine; `own`: names of cgroups whose containers do not count."""

    own: Collection[str] = ()
    started: Counter[str] = field(default_factory=Counter)
    _live: OrderedDict[str, int] = field(default_factory=OrderedDict)  # cgroups of each container, all hierarchies
    _runs: OrderedDict[int, _Run] = field(default_factory=OrderedDict)

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

    def _made(self, event: CgroupEvent) -> None:
        found = container_of(event.path)
        run = self._run_of(event) if event.run else None
        if found is None:
            if run is not None and _is_part(event.path):
                run.counted = True
            return
        if run is not None:
            run.counted = True
        if not self._live.get(found.name):
            self.started[found.engine] += 1
        self._live[found.name] = self._live.get(found.name, 0) + 1
        if len(self._live) > _MOST_LIVE:
            self._live.popitem(last=False)

    def _run_of(self, event: CgroupEvent) -> _Run:
        run = self._runs.setdefault(event.run, _Run(event.comm, event.at_ns))
        run.last_ns = event.at_ns
        return run

    def _removed(self, event: CgroupEvent) -> None:
        found = container_of(event.path)
        if found is None or found.name not in self._live:
            return
        self._live[found.name] -= 1
        if self._live[found.name] <= 0:
            del self._live[found.name]

    def _settle(self, now_ns: int) -> None:
        for run in self._runs.values():
            if not run.counted and now_ns - run.last_ns >= SETTLE_NS:
                run.counted = True
                self.started[run.comm or "other"] += 1
        while len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)
