"""What a traced run recorded: events of the kernel, steps of the engine, and what the counting probe saw meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kickwatch.model import Container, Control, Node, Window
from kickwatch.observe.trace_events import Losses, TraceEvent


class Step(NamedTuple):
    """One call to the engine for one container. `failed`: it raised."""

    container: int
    name: str
    began_ns: int
    ended_ns: int
    failed: bool = False


class Edge(NamedTuple):
    """One edge of the counted span: the counting probe changed its bank between `began_ns` and `ended_ns`.

    A request between these two moments was counted before the edge if its bank is `bank_before`, else after it.
    """

    began_ns: int
    ended_ns: int
    bank_before: int

    def is_before(self, event: TraceEvent) -> bool:
        """True if the event was counted before the edge."""
        if self.began_ns <= event.at_ns <= self.ended_ns:
            return event.bank == self.bank_before
        return event.at_ns < self.began_ns


@dataclass(frozen=True)
class Recording:
    """One traced run. Times: CLOCK_MONOTONIC in ns.

    `window`: what the counting probe counted between `first` and `last`. `stack`, `function`: names of an id and of an
    address. `ids`: the engine's id of each container. `own_pids`: processes in these containers, with their container.
    """

    events: Sequence[TraceEvent]
    steps: Sequence[Step]
    first: Edge
    last: Edge
    window: Window
    losses: Losses
    node: Node
    containers: Sequence[Container]
    control: Control
    cpus: Sequence[int]
    stack: Callable[[int], tuple[str, ...]]
    function: Callable[[int], str]
    cgroup_parent: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)
    own_pids: Mapping[int, int] = field(default_factory=dict)
    waits_known: bool = True
    notes: Sequence[str] = ()
