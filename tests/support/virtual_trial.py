"""A node on a virtual clock for trials: observers and a workload that remember every call and can fail or be cancelled.

No call takes real time. A paired trial waits while its containers live, so it runs on a `virtual_loop`.

Each `await` of a trial ends in `Stage.at`, so that a test can cancel the trial at any of them.
"""

import asyncio
from dataclasses import dataclass, field, replace

from builders import TLB, containers, trial, window
from kickwatch.errors import EngineError
from kickwatch.experiment.kmem_accounting import KmemFacts
from kickwatch.experiment.ports import TrialSettings
from kickwatch.experiment.steps import texts_to
from kickwatch.experiment.trial import run_trial
from kickwatch.model import (
    Cell,
    Container,
    ContentionRung,
    Control,
    Disturbance,
    IpiRung,
    Node,
    Observers,
    Trial,
    Window,
    WindowKind,
)
from kickwatch.node.continuity import Moment
from kickwatch.observe.interrupts import InterruptSample
from kickwatch.observe.readings import Health
from kickwatch.observe.requests import RequestSample
from kickwatch.observe.windows import Sample, requests_lost

START_S = 1000.0
UNIX_S = 1_700_000_000.0
SAMPLE_S = 0.001
BATCH_S = 0.04
CHURN_FIRST, QUIET_FIRST = 5, 6  # seeds
SETTINGS = TrialSettings(
    trial_id="0badcafe", seed=CHURN_FIRST, containers=8, window_s=5.0, settle_s=15.0, canary_memcgs=100
)


@dataclass
class Stage:
    """What the fakes share: the virtual time, the calls so far, and where to cancel or fail."""

    now_s: float = START_S
    calls: list[str] = field(default_factory=list)
    alive_at_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    cancel_at: int = 0  # the number of the call that cancels the trial, from 1
    fail_at: str = ""  # the call that fails
    task: asyncio.Task[Trial] | None = None

    async def at(self, call: str, takes_s: float = 0.0) -> None:
        """A call of the trial: it takes virtual time, and may fail or cancel the trial."""
        self.calls.append(call)
        self.now_s += takes_s
        if call == self.fail_at:
            raise EngineError(f"{call} fails", "")
        if len(self.calls) == self.cancel_at and self.task is not None:
            self.task.cancel()
        await asyncio.sleep(0)


class LoopStage(Stage):
    """The time is that of a VirtualLoop."""

    @property
    def now_s(self) -> float:  # type: ignore[override]
        return asyncio.get_running_loop().time()

    @now_s.setter
    def now_s(self, _: float) -> None:
        """Only the loop lets time pass."""

    async def at(self, call: str, takes_s: float = 0.0) -> None:
        await super().at(call)
        await asyncio.sleep(takes_s)


@dataclass
class VirtualClock:
    stage: Stage

    def monotonic_s(self) -> float:
        return self.stage.now_s

    def unix_s(self) -> float:
        return UNIX_S + self.stage.now_s - START_S

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        await self.stage.at("sleep", seconds)


@dataclass
class FakeObservers:
    """`broadcasting_until_s`: until then each look finds one more broadcast of the creation path."""

    stage: Stage
    armed: bool = True
    broadcasting_until_s: float = 0.0
    healths: list[Health] = field(default_factory=list)  # of the next samples
    cells: dict[WindowKind, tuple[Cell, ...]] = field(default_factory=dict)
    disturbances: dict[WindowKind, tuple[Disturbance, ...]] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    of_windows: list[tuple[Cell, ...]] = field(default_factory=list)  # cells of the next windows, before `cells`
    rungs: Observers = field(default=Observers(ipis=IpiRung.KPROBE, contention=ContentionRung.TRACEPOINT))
    control: Control = field(default=Control(passed=True, detail="23 of 23"))
    slab_mutex_known: bool = False
    senders_known: bool = True
    isolated_cpus: tuple[int, ...] = ()
    counts_targets: bool = True
    losses: tuple[str, ...] = ("slab_mutex not found yet",)
    requests_lost = staticmethod(requests_lost)
    last_broadcast_s: float = 0.0
    _broadcasts: int = 0

    async def sample(self) -> Sample:
        await self.stage.at("sample", SAMPLE_S)
        health = self.healths.pop(0) if self.healths else Health()
        at_ns = round(self.stage.now_s * 1e9)
        return Sample(at_ns, InterruptSample((0, 1), {}), RequestSample({}, health), None)

    def window(self, kind: WindowKind, before: Sample, after: Sample) -> Window:
        self.windows.append(
            window(
                kind,
                *(self.of_windows.pop(0) if self.of_windows else self.cells.get(kind, (TLB,))),
                duration_ns=after.at_ns - before.at_ns,
                disturbances=self.disturbances.get(kind, ()),
                per_cpu=(0, 1200) if self.counts_targets else None,
            )
        )
        return self.windows[-1]

    def creation_broadcasts(self) -> int | None:
        if self.stage.now_s < self.broadcasting_until_s:
            self._broadcasts += 1
            self.last_broadcast_s = self.stage.now_s
        return self._broadcasts if self.armed else None

    async def between_windows(self) -> None:
        await self.stage.at("between_windows")


@dataclass
class FakeWorkload:
    stage: Stage
    container_s: float = 0.5
    lives_s: list[float] = field(default_factory=list)  # of the next containers, before `container_s`
    lived: list[tuple[float, float]] = field(default_factory=list)  # begin and end of each churn
    begun: int = 0
    batch: int = 0  # memcgs of the canary that exist
    notes: tuple[str, ...] = ("runc is driven directly",)
    facts: KmemFacts = field(default_factory=KmemFacts)
    moments: list[Moment] = field(default_factory=list)

    async def restore(self) -> None:
        await self.stage.at("restore")

    async def churn(self, number: int) -> tuple[Container, ...]:
        began_s = self.stage.now_s
        for _ in range(number):
            self.begun += 1
            await self.stage.at("container", self.lives_s.pop(0) if self.lives_s else self.container_s)
        self.lived.append((began_s, self.stage.now_s))
        return containers(number)

    async def create_batch(self, memcgs: int) -> None:
        self.batch = memcgs  # from the beginning: a batch that fails half-way exists in part
        await self.stage.at("create_batch", BATCH_S)

    async def remove_batch(self) -> None:
        await self.stage.at("remove_batch", BATCH_S)
        self.batch = 0

    async def reclaim(self) -> None:
        await self.stage.at("reclaim")

    async def moment(self) -> Moment:
        await self.stage.at("moment")
        return self.moments.pop(0) if self.moments else Moment(0, (1, 1))

    async def node(self) -> Node:
        await self.stage.at("node")
        return trial().node

    async def kmem_facts(self) -> KmemFacts:
        await self.stage.at("kmem_facts")
        return self.facts


class VirtualTrial:
    """One trial with its fakes. Change them before `run`."""

    def __init__(self, settings: TrialSettings = SETTINGS, **changes: object) -> None:
        self.settings = replace(settings, **changes)
        self.stage = LoopStage() if self.settings.paired else Stage()
        self.observers = FakeObservers(self.stage)
        self.workload = FakeWorkload(self.stage)

    async def run(self) -> Trial:
        running = run_trial(
            self.settings,
            self.observers,
            self.workload,
            VirtualClock(self.stage),
            progress=texts_to(self.stage.texts.append),
            alive=lambda: self.stage.alive_at_s.append(self.stage.now_s),
        )
        self.stage.task = asyncio.ensure_future(running)
        return await self.stage.task
