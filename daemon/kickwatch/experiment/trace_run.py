"""`kickwatch trace`: a few containers, one after the other, with every event listed; the ordinary probe counts beside.

The same machinery as a trial: node lock, positive control, warm-up, clean-up. Never part of the daemon.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic_ns

from kickwatch.configuration.types import Config
from kickwatch.experiment.armed_observers import listed_cpus
from kickwatch.experiment.engine_workload import SETTLE_S
from kickwatch.experiment.own_work import OwnWork
from kickwatch.experiment.rig import Rig
from kickwatch.experiment.traced_engine import TracedEngine
from kickwatch.model import Container, WindowKind
from kickwatch.node import kernel
from kickwatch.node.cgroups import reclaim
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.node.roots import HOST
from kickwatch.observe.trace_events import Kind, event_of
from kickwatch.observe.tracer import Tracer
from kickwatch.observe.windows import Sample
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import Shutdown
from kickwatch.trace.recording import Edge, Recording
from kickwatch.trace.tasks import is_engine
from kickwatch.workload.names import new_trial_id

_DRAIN_S = 0.1
_MARGIN_S = 0.2  # the probe lists this long before and after the counted span
_AFTER_S = 2.0  # asynchronous work of the last container

Progress = Callable[[str], None]


async def record(
    config: Config, containers: int, progress: Progress = lambda _text: None, ending: Shutdown | None = None
) -> Recording:
    """Run `containers` of the configured churn, one at a time, and list every event. Raises KickwatchError."""
    own = OwnWork()
    own.isolated = await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config))
    leave_isolated_cpus(own.isolated)
    with NodeLock():
        async with Rig.open(config, ending=ending, own=own) as rig:
            progress("arming the trace")
            tracer = await run_shielded(asyncio.to_thread(Tracer.arm, rig.observatory))
            try:
                await asyncio.sleep(SETTLE_S)  # arming broadcasts
                return await _TraceRun(rig, tracer, containers, progress).run()
            finally:
                tracer.close()


@dataclass
class _TraceRun:
    rig: Rig
    tracer: Tracer
    containers: int
    progress: Progress
    own_pids: dict[int, int] = field(default_factory=dict)
    _looked_at: int = 0

    async def run(self) -> Recording:
        observatory = self.rig.observatory
        await observatory.between_windows()
        engine = TracedEngine(self.rig.engine)
        async with self._listing(engine):
            await asyncio.sleep(_MARGIN_S)
            before, first = await self._edge()
            done = await self._churn(engine)
            await asyncio.sleep(_AFTER_S)
            after, last = await self._edge()
            await asyncio.sleep(_MARGIN_S)
        await self._reclaim()
        return Recording(
            events=[event_of(record) for record in self.tracer.records],
            steps=engine.steps,
            first=first,
            last=last,
            window=observatory.window(WindowKind.CHURN, before, after),
            losses=self.tracer.losses(),
            node=await asyncio.to_thread(self.rig.node),
            containers=done,
            control=self.rig.armed.control,
            cpus=await asyncio.to_thread(kernel.online),
            stack=self._stacks(),
            function=observatory.symbols.resolve,
            cgroup_parent=self.rig.setup.parent_name,
            ids=engine.ids,
            own_pids=self.own_pids,
            waits_known=observatory.slab_mutex_known,
            notes=observatory.losses,
        )

    async def _reclaim(self) -> None:
        """Free our dying memcgs, as a trial does: they would keep static keys on. It makes each CPU drain its lists."""
        if not self.rig.observatory.isolated_cpus:
            _ = await asyncio.to_thread(reclaim, self.rig.setup.parent_memcg)

    def _stacks(self) -> Callable[[int], tuple[str, ...]]:
        """The names of every listed stack, read while the probe is still loaded."""
        named = {stack: self.tracer.stack(stack) for stack in {event_of(one).stack for one in self.tracer.records}}
        return lambda stack: named.get(stack, ())

    async def _churn(self, engine: TracedEngine) -> tuple[Container, ...]:
        setup = replace(self.rig.setup, engine=engine.as_engine())
        plan = replace(setup.plan(new_trial_id(), self.containers), concurrency=1)

        async def uncounted() -> None:  # a reading would change the bank, and move the edge
            self.progress(f"container {len(engine.ids)} of {self.containers} done")

        return await setup.churn(plan, setup.knobs(), uncounted).run()

    async def _edge(self) -> tuple[Sample, Edge]:
        requests = self.rig.observatory.requests
        bank = requests.bank if requests is not None else 0
        began_ns = monotonic_ns()
        sample = await self.rig.observatory.sample()
        return sample, Edge(began_ns, monotonic_ns(), bank)

    @asynccontextmanager
    async def _listing(self, engine: TracedEngine) -> AsyncIterator[None]:
        """List events meanwhile, and empty the ring ten times a second."""
        self.tracer.switch(on=True)
        draining = asyncio.create_task(self._drain(engine))
        try:
            yield
        finally:
            draining.cancel()
            with suppress(asyncio.CancelledError):
                await draining
            self.tracer.switch(on=False)
            self.tracer.drain()

    async def _drain(self, engine: TracedEngine) -> None:
        while True:
            self.tracer.drain()
            if engine.ids:
                await self._find_own(engine.ids)
            await asyncio.sleep(_DRAIN_S)

    async def _find_own(self, ids: dict[int, str]) -> None:
        """Which of the processes that were just started are in our containers: their names may be shown."""
        new, self._looked_at = self.tracer.records[self._looked_at :], len(self.tracer.records)
        started = {event.pid for event in map(event_of, new) if event.kind == Kind.EXEC and not is_engine(event.comm)}
        if started:
            self.own_pids |= await asyncio.to_thread(_containers_of, started, dict(ids))


def _containers_of(pids: set[int], ids: dict[int, str], proc: Path = HOST.proc) -> dict[int, int]:
    """The container of each process that is in one of ours; one that has ended is left out."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            groups = (proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
            found.update((pid, index) for index, name in ids.items() if name in groups)
    return found
