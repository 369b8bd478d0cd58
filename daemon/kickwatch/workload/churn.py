"""Containers coming and going: create, start, barrier, wait, remove, serially or several at once.

At the barrier kickwatch reads the container's memcg (was kernel memory really charged?), turns the kmem knobs if it is
asked to, and releases the program. A user's program has no barrier: it may run for `hold_s` and is then removed, which
is no failure; its memcg is read right after its start, unless it has ended by then. A container that fails in any step
is recorded with its reason and does not count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter

from kickwatch.errors import EngineAnswerLostError, KickwatchError
from kickwatch.model import Container
from kickwatch.process.cancellation import detached_group, run_shielded
from kickwatch.workload.barrier import Barrier, Place
from kickwatch.workload.engine import ContainerSpec, Engine
from kickwatch.workload.knobs import Knobs

_PIDS_LIMIT = 64  # our own program forks once
AfterContainer = Callable[[], Awaitable[int | None]]


@dataclass(frozen=True)
class ChurnPlan:
    """What to churn: a template for every container, how many, how many at once, and how fast.

    `hold_s`: how long our own program is held at its barrier; for a user's image, how long it may run before it is
    removed. `wait_s`: how long our own program may take to exit once it is released. `rate_hz` 0 is no pacing.
    """

    image: str
    command: tuple[str, ...]
    network: str
    instance: str
    trial: str
    cgroup_parent: str
    containers: int
    concurrency: int = 1
    rate_hz: float = 0.0
    hold_s: float = 0.0
    wait_s: float = 40.0
    own_program: bool = True

    def spec(self, index: int) -> ContainerSpec:
        """The container number `index` of this trial."""
        return ContainerSpec(
            name=f"kickwatch-{self.trial}-{index}",
            instance=self.instance,
            trial=self.trial,
            image=self.image,
            command=self.command,
            network=self.network,
            cgroup_parent=self.cgroup_parent,
            pids_limit=_PIDS_LIMIT if self.own_program else 0,
        )


@dataclass
class _Life:
    """What is known of a container while it lives."""

    index: int
    name: str
    started: float = field(default_factory=perf_counter)
    container_id: str = ""
    steps_ms: dict[str, float] = field(default_factory=dict)
    kmem_bytes: int | None = None

    def step(self, name: str) -> None:
        """The step `name` ends now."""
        now = perf_counter()
        self.steps_ms[name] = (now - self.started) * 1e3
        self.started = now

    def named(self, error: KickwatchError) -> str:
        """What went wrong, and with which container."""
        return str(error) if self.name in str(error) else f"container {self.name}: {error}"

    def record(self, broadcasts: int | None = None, failure: str = "") -> Container:
        steps = {f"{name}_ms": round(self.steps_ms.get(name, 0.0), 3) for name in ("create", "start", "wait", "remove")}
        return Container(
            index=self.index,
            kmem_bytes=self.kmem_bytes,
            creation_path_broadcasts=broadcasts,
            failure=failure,
            **steps,
        )


class Churn:
    """Runs a Plan on an Engine."""

    def __init__(self, engine: Engine, plan: ChurnPlan, barrier: Barrier, knobs: Knobs, after: AfterContainer) -> None:
        """`after` is awaited at the end of each life of a serial churn; it returns the creation path's broadcasts."""
        self._engine = engine
        self._plan = plan
        self._barrier = barrier
        self._knobs = knobs
        self._after = after
        self._next = 0
        self._not_before = 0.0
        self.begun = 0  # containers that the engine was asked for

    async def run(self) -> tuple[Container, ...]:
        """All containers, in the order of their numbers. Cancelling removes what is under way first.

        Raises the first KickwatchError that no single container can be blamed for, plain: an engine that is gone is
        gone for all workers alike, and one of them says so.
        """
        done: list[Container] = []
        failed: KickwatchError | None = None

        async def work() -> None:
            while self._next < self._plan.containers:
                index, self._next = self._next, self._next + 1
                await self._pace()
                done.append(await self._one(index))

        async def workers() -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._plan.concurrency, self._plan.containers)):
                    tasks.create_task(work())

        try:
            await detached_group(workers())
        except* KickwatchError as group:
            failed = _first(group)
        if failed is not None:  # not raised in the clause: Python before 3.11.4 wraps what leaves an except* in a group
            raise failed
        return tuple(sorted(done, key=lambda container: container.index))

    async def _pace(self) -> None:
        if self._plan.rate_hz:
            now = asyncio.get_running_loop().time()
            self._not_before = max(now, self._not_before) + 1.0 / self._plan.rate_hz
            await asyncio.sleep(self._not_before - 1.0 / self._plan.rate_hz - now)

    async def _one(self, index: int) -> Container:
        life = _Life(index, self._plan.spec(index).name)
        self.begun += 1
        failure = ""
        try:
            failure = await self._live(life)
        except EngineAnswerLostError as error:
            await self._engine.info()  # raises EngineAbsentError: no trial goes on without an engine
            failure = life.named(error)
        except KickwatchError as error:
            failure = life.named(error)
        finally:
            failure = await self._remove(life, failure)
        life.step("remove")
        await self._knobs.after_container()
        broadcasts = await self._after() if self._plan.concurrency == 1 else None
        return life.record(broadcasts, failure)

    async def _live(self, life: _Life) -> str:
        """One life up to its exit; returns why it does not count, or nothing."""
        life.container_id = await self._engine.create(self._plan.spec(life.index))
        life.step("create")
        await self._engine.start(life.container_id)
        life.step("start")
        place = await self._barrier.reached(life.container_id, self._engine.pid, life.name)
        if place is not None:
            life.kmem_bytes = await asyncio.to_thread(place.kmem_bytes)
            await asyncio.to_thread(self._knobs.turn, place.memcg)
        ending = self._end_own(life, place) if self._plan.own_program else self._end_users(life)
        failure = await ending
        life.step("wait")
        return failure

    async def _end_own(self, life: _Life, place: Place | None) -> str:
        """Release our program and wait for its exit."""
        if place is not None:
            await asyncio.sleep(self._plan.hold_s)
            await asyncio.to_thread(place.release)
        status = await self._engine.wait(life.container_id, self._plan.wait_s)
        if status is None:
            return f"container {life.name} did not exit within {self._plan.wait_s:g} s"
        if place is None:
            return f"container {life.name} ended (status {status}) before its barrier"
        return f"container {life.name} exited with status {status}" if status else ""

    async def _end_users(self, life: _Life) -> str:
        """Let a user's program run for `hold_s`; one that still runs then has done what it is there for."""
        if not self._plan.hold_s:
            return ""
        status = await self._engine.wait(life.container_id, self._plan.hold_s)
        return f"container {life.name} exited with status {status}" if status else ""

    async def _remove(self, life: _Life, failure: str) -> str:
        """Remove it whatever happened, however often we are cancelled meanwhile; the engine bounds the call."""
        if not life.container_id:
            return failure
        try:
            await run_shielded(self._engine.remove(life.container_id))
        except KickwatchError as error:
            return failure or life.named(error)
        return failure


def _first(group: BaseExceptionGroup[KickwatchError]) -> KickwatchError:
    """The first error in a group, however deep it is nested."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
