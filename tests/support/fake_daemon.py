"""The parts of a daemon without a node: a fake engine, fake trials, and a clock that moves only when someone sleeps.

Sessions, schedule, guard, drain, budget, evidence and state machine are the real ones.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from builders import trial
from kickwatch.configuration.types import (
    BudgetConfig,
    Config,
    GuardConfig,
    MetricsConfig,
    StateConfig,
    TrialConfig,
    WorkloadConfig,
)
from kickwatch.errors import EngineAbsentError, LeftoversStayError
from kickwatch.experiment.passive_count import Counted
from kickwatch.journal.remark import Remark
from kickwatch.model import ContentionRung, Control, IpiRung, Observers, Trial
from kickwatch.node.pressure import Pressure
from kickwatch.observe.containers import ContainersRung
from kickwatch.outlets.events import OutletEvent
from kickwatch.outlets.outlet import Outlets, PlainOutlet
from kickwatch.process.sd_notify import Notifier
from kickwatch.process.signals import DrainedError
from kickwatch.service.budget_ledger import BudgetLedger
from kickwatch.service.daemon_state import DaemonState
from kickwatch.service.drain import Drain
from kickwatch.service.engine_backoff import EngineBackoff
from kickwatch.service.evidence import Evidence
from kickwatch.service.experiments import Step
from kickwatch.service.heartbeat import Heartbeat
from kickwatch.service.node_guard import NodeGuard
from kickwatch.service.parts import Parts
from kickwatch.service.watch import Watch
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import EngineNames

if TYPE_CHECKING:
    from kickwatch.observe.losses import Loss

T = TypeVar("T")
Event = TypeVar("Event", bound=OutletEvent)
Action = Callable[[], None]
DOCKER = EngineInfo(name="docker", version="28", runtime="runc 1", cgroup_driver="cgroupfs", root="/nowhere")
GONE = EngineAbsentError("no container engine answers", "start it")
CALM = Pressure(available_memory_pct=80.0, containers=1, load_per_cpu=0.1)


def config_in(directory: Path, **sections: Any) -> Config:
    """A configuration for tests: ten containers a trial, no pause, no guard, a wide budget."""
    usual = Config(
        workload=WorkloadConfig(containers_per_trial=10),
        trial=TrialConfig(interval_s=0.0, jitter=0.0),
        budget=BudgetConfig(cpu_share=1.0, containers_per_hour=100_000, containers_per_day=1_000_000),
        guard=GuardConfig(enabled=False, poll_s=2.0),
        state=StateConfig(directory=str(directory / "state")),
        metrics=MetricsConfig(enabled=False),
    )
    return replace(usual, **sections)


class Recorder(PlainOutlet):
    """An outlet that keeps the events."""

    def __init__(self) -> None:
        self.events: list[OutletEvent] = []
        self.reloads: list[Config] = []

    async def reload(self, config: Config) -> None:
        self.reloads.append(config)

    async def take(self, event: OutletEvent) -> None:
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def names(self, *without: type[OutletEvent]) -> list[str]:
        """The kinds of all events in order, repeated ones once."""
        kinds = [type(event) for event in self.events if not isinstance(event, without)]
        return [kind.__name__ for before, kind in zip([None, *kinds], kinds, strict=False) if kind is not before]


class FakeSwitches:
    """Stands in for signals and the drain file. Sleeping moves the clock, and does what is planned by then."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.drain_file = ""
        self.reload_asked = False
        self.by = ""
        self._planned: list[tuple[float, Action]] = []

    def at(self, after_s: float, action: Action) -> None:
        """Do that once the clock has moved on by `after_s`."""
        self._planned.append((self.now_s + after_s, action))
        self._planned.sort(key=lambda plan: plan[0])

    def reload(self) -> None:
        self.reload_asked = True

    def drain(self, by: str) -> None:
        self.by = by

    async def drained_by(self) -> str:
        return self.by

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        until_s = self.now_s + seconds
        while self._planned and self._planned[0][0] <= until_s:
            at_s, action = self._planned.pop(0)
            self.now_s = max(self.now_s, at_s)
            action()
            if self.reload_asked:
                return
        self.now_s = until_s
        await asyncio.sleep(0)

    async def unless_drained(self, work: Coroutine[Any, Any, T], poll_s: float) -> T:
        task = asyncio.ensure_future(work)
        try:
            while not task.done() and not self.by:
                await self.sleep(poll_s)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            raise DrainedError
        return task.result()


class FakeLock:
    """The lock, which another process may have removed."""

    path = Path("/nowhere/lock")
    removed = False

    def renew(self) -> bool:
        removed, self.removed = self.removed, False
        return removed


@dataclass
class FakeTrial:
    """One trial. `ends`: what it raises; `forever`: it goes on until it is cancelled."""

    number: int
    planned: int
    step: Step
    ends: BaseException | None = None
    forever: bool = False
    started: int | None = None  # containers, if it does not start all
    begun: int = 0
    remarks: list[Remark] = field(default_factory=list)

    async def run(self) -> Trial:
        self.step("churn window")
        self.begun = self.planned if self.started is None else self.started
        if self.forever:
            await asyncio.Event().wait()
        if self.ends is not None:
            raise self.ends
        return replace(trial(count=self.planned), trial_id=f"{self.number:08x}", started_unix_s=1e9 + self.number)


class FakeRig:
    """An engine that answers."""

    def __init__(self, node: "FakeNode") -> None:
        self.info = node.engine
        self.remarks: list[Remark] = []
        self.reaped = 0
        self._node = node

    def trial(self, containers: int, step: Step, number: int) -> FakeTrial:
        self._node.calls.append("trial")
        ends = self._node.endings.pop(0) if self._node.endings else {}
        return FakeTrial(number, containers, step, **ends)

    async def pressure(self) -> Pressure:
        return self._node.readings

    async def engine_changed(self) -> bool:
        return self._node.engine != self.info

    async def tidy(self) -> int:
        self._node.calls.append("tidy")
        return 0

    async def recover(self) -> None:
        if self._node.gone:
            raise GONE
        self._node.calls.append("recover")

    def shorten_timeouts(self) -> None:
        self._node.calls.append("shorten_timeouts")


async def nothing() -> None:
    """A hook that no test uses."""


class FakeOpening:
    """Opens that rig, or fails as the node says."""

    def __init__(self, node: "FakeNode", config: Config, known: EngineNames | None) -> None:
        self.config, self.known = config, known
        self.begun = 0
        self._node = node

    async def __aenter__(self) -> FakeRig:
        self._node.calls.append("open")
        await self._node.on_open()
        self.begun = self._node.begun_at_start
        if self._node.start_fails:
            raise self._node.start_fails.pop(0)
        if self._node.gone:
            raise GONE
        return FakeRig(self._node)

    async def __aexit__(self, *_: object) -> None:
        self._node.calls.append("close")
        await self._node.on_close()
        if self._node.close_fails is not None:
            raise self._node.close_fails


class FakePassive:
    """Passive mode: a summary at every third look."""

    def __init__(self, node: "FakeNode", step: Step) -> None:
        self._node, self._step = node, step
        self._looks = count(1)

    async def look(self) -> None:
        self._node.calls.append("look")
        self._step("passive: 0 containers started by others")
        self.looks = next(self._looks)

    def counted(self) -> tuple[Counted, str]:
        return Counted(Counter(docker=self.looks), armed=True), ""

    def record_if_due(self) -> Trial | None:
        return self._node.records.pop(0) if self._node.records else None

    def summary_if_due(self, period_s: float) -> dict[str, Any] | None:
        return {"mode": "passive", "period_s": period_s} if self.looks % 3 == 0 else None

    async def aclose(self) -> None:
        self._node.calls.append("passive closed")


class FakeNode:
    """Stands in for the node: its engine, its trials, its readings. `calls`: what it was asked, in order."""

    def __init__(self) -> None:
        self.cpus_online = 2
        self.observers = Observers(ipis=IpiRung.CSD, contention=ContentionRung.TRACEPOINT)
        self.losses: tuple[Loss, ...] = ()
        self.containers_rung = ContainersRung.TRACEPOINT
        self.records: list[Trial] = []  # of passive mode, one at each look
        self.engine = DOCKER
        self.gone = False
        self.readings = CALM
        self.begun_at_start = 1
        self.endings: list[dict[str, Any]] = []  # how trials end, in order; then they succeed
        self.start_fails: list[BaseException] = []
        self.close_fails: BaseException | None = None
        self.on_open: Callable[[], Awaitable[None]] = nothing
        self.on_close: Callable[[], Awaitable[None]] = nothing
        self.sweeps_fail = False
        self.leftovers_stay = 0  # at so many sweeps
        self.openings: list[FakeOpening] = []
        self.calls: list[str] = []

    def open_rig(self, config: Config, known: EngineNames | None) -> FakeOpening:
        self.openings.append(FakeOpening(self, config, known))
        return self.openings[-1]

    def passive(self, _: Config, step: Step) -> FakePassive:
        return FakePassive(self, step)

    async def sweep(self, _: Config) -> int:
        self.calls.append("sweep")
        if self.sweeps_fail:
            raise GONE
        self.leftovers_stay -= 1
        if self.leftovers_stay >= 0:
            raise LeftoversStayError("3 containers stay", "")
        return 3

    async def pressure(self) -> Pressure:
        return replace(self.readings, containers=None)


class Statuses(Notifier):
    """A notifier that keeps what it would send."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[str] = []
        self.sent: list[str] = []

    def status(self, text: str) -> None:
        if text != self.doing:
            self.statuses.append(text)
        super().status(text)

    def ready(self) -> None:
        self.sent.append("ready")

    def reloading(self) -> None:
        self.sent.append("reloading")

    def progress(self) -> None:
        self.sent.append("progress")


@dataclass
class FakeDaemon:
    """The parts, and the fakes among them."""

    parts: Parts
    outlets: Outlets
    recorder: Recorder
    switches: FakeSwitches
    node: FakeNode
    notifier: Statuses
    lock: FakeLock
    armed: Any


async def fake_daemon(config: Config, trials: int | None = None, draw: float = 0.5) -> FakeDaemon:
    """A daemon with that configuration on a fake node. `draw`: what chance draws each time."""
    recorder, switches, node, notifier, lock = Recorder(), FakeSwitches(), FakeNode(), Statuses(), FakeLock()
    outlets = Outlets([recorder])
    armed = SimpleNamespace(control=Control(passed=True, detail="23 of 23 multi-CPU calls"), proofs=0)

    async def prove() -> None:
        armed.proofs += 1

    armed.prove = prove

    def now_s() -> float:
        return switches.now_s

    evidence = await Evidence.open(config)
    report = outlets.report
    guard = NodeGuard(config.guard, config.budget.preset, report, now_s)
    parts = Parts(
        state=DaemonState(Drain(switches, report), guard, EngineBackoff(report, now_s), trials),
        switches=switches,
        lock=lock,
        experiments=node,
        watch=Watch(armed, evidence, report, now_s=now_s),  # type: ignore[arg-type]
        ledger=await BudgetLedger.open(config, evidence.history, now_s, lambda: 0.0),
        heartbeat=Heartbeat(notifier),
        report=report,
        now_s=now_s,
        draw=lambda: draw,
    )
    return FakeDaemon(parts, outlets, recorder, switches, node, notifier, lock, armed)
