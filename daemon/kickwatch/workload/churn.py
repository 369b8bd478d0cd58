"""Container churn: create, start, barrier, wait, remove, for one container at a time or several concurrently.

At the barrier kickwatch reads the container's memcg (was kernel memory charged?), writes the configured kmem limits,
and releases the program. A user's program has no barrier: it may run for `hold_s` and is then removed, which is no
failure; its memcg is read right after its start, unless it has exited by then. A container that fails in any step is
recorded with the reason and does not count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter

from kickwatch.errors import EngineAnswerLostError, KickwatchError, NoHostProcessError
from kickwatch.journal.remark import Remark
from kickwatch.model import Container
from kickwatch.process.cancellation import detached_group, run_shielded
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.container_process import ContainerProcess
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.engine import ContainerSpec, Engine
from kickwatch.workload.knobs import Knobs

_PIDS_LIMIT = 64  # our own program forks once
BroadcastCounter = Callable[[], Awaitable[int | None]]


@dataclass(frozen=True)
class ChurnPlan:
    """A template for every container, how many to run, how many concurrently, and how fast.

    `hold_s`: how long our program is held at its barrier; for a user's image, how long it may run before it is removed.
    `wait_s`: how long our program may take to exit after its release. `rate_hz`: containers started per second; 0 does
    not limit the rate.
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
        """The specification of container number `index` of this trial."""
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
    """The life of one container so far."""

    index: int
    name: str
    step_began_s: float = field(default_factory=perf_counter)
    container_id: str = ""
    steps_ms: dict[str, float] = field(default_factory=dict)
    sandbox_ms: float | None = None
    kmem_bytes: int | None = None
    ended_unread: bool = False

    def end_step(self, name: str) -> None:
        """Record the duration of the step `name`, which ends now."""
        now_s = perf_counter()
        self.steps_ms[name] = (now_s - self.step_began_s) * 1e3
        self.step_began_s = now_s

    def set_apart(self, sandbox_ms: float | None) -> None:
        """The pod, which the engine made in the step `create`, is a step before it."""
        if sandbox_ms is not None:
            self.sandbox_ms = round(sandbox_ms, 3)
            self.steps_ms["create"] -= sandbox_ms

    def failure(self, error: KickwatchError) -> str:
        """The error's text with the container's name."""
        return str(error) if self.name in str(error) else f"container {self.name}: {error}"

    def record(self, broadcasts: int | None = None, failure: str = "") -> Container:
        steps = {f"{name}_ms": round(self.steps_ms.get(name, 0.0), 3) for name in ("create", "start", "wait", "remove")}
        return Container(
            index=self.index,
            sandbox_ms=self.sandbox_ms,
            kmem_bytes=self.kmem_bytes,
            creation_path_broadcasts=broadcasts,
            failure=failure,
            ended_unread=self.ended_unread,
            **steps,
        )


class Churn:
    """Runs a ChurnPlan on an Engine."""

    def __init__(
        self,
        engine: Engine,
        plan: ChurnPlan,
        barrier: Barrier,
        knobs: Knobs,
        count_broadcasts: BroadcastCounter,
        *,
        record: ContainerRecord | None = None,
    ) -> None:
        """`count_broadcasts` gives the creation path's broadcasts since its last call.

        It is awaited at the end of each container's life if containers run one at a time. `record`: of what is started.
        """
        self._record = record
        self._engine = engine
        self._plan = plan
        self._barrier = barrier
        self._knobs = knobs
        self._count_broadcasts = count_broadcasts
        self._next_index = 0
        self._next_start_s = 0.0
        self.attempted = 0  # containers that the engine was asked to create

    @property
    def remarks(self) -> list[Remark]:
        """What the kernel did not accept of the configured limits."""
        return self._knobs.remarks

    async def run(self, containers: int | None = None) -> tuple[Container, ...]:
        """Run the next `containers` of the plan, or all that are left, and return them in order.

        A cancellation removes those in progress before it takes effect.

        An error that is not a single container's, such as an engine that is gone, hits all workers. The first such
        KickwatchError is raised, without an exception group.
        """
        done: list[Container] = []
        failed: KickwatchError | None = None
        left = self._plan.containers - self._next_index
        count = left if containers is None else min(containers, left)
        end = self._next_index + count

        async def work() -> None:
            while self._next_index < end:
                index, self._next_index = self._next_index, self._next_index + 1
                await self._pace()
                done.append(await self._run_one(index))

        async def workers() -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._plan.concurrency, count)):
                    tasks.create_task(work())

        try:
            await detached_group(workers())
        except* KickwatchError as group:
            failed = _first_error(group)
        if failed is not None:  # raised here: before Python 3.11.4 an error raised in an except* clause becomes a group
            raise failed
        return tuple(sorted(done, key=lambda container: container.index))

    async def _pace(self) -> None:
        if self._plan.rate_hz:
            now_s = asyncio.get_running_loop().time()
            start_s = max(now_s, self._next_start_s)
            self._next_start_s = start_s + 1.0 / self._plan.rate_hz
            await asyncio.sleep(start_s - now_s)

    async def _run_one(self, index: int) -> Container:
        life = _Life(index, self._plan.spec(index).name)
        self.attempted += 1
        failure = ""
        try:
            failure = await self._live(life)
        except NoHostProcessError:
            raise  # it is so with every container
        except EngineAnswerLostError as error:
            await self._engine.info()  # raises EngineAbsentError, which ends the trial, if the engine is gone
            failure = life.failure(error)
        except KickwatchError as error:
            failure = life.failure(error)
        finally:
            failure = await self._remove(life, failure)
        life.end_step("remove")
        await self._knobs.after_container()
        broadcasts = await self._count_broadcasts() if self._plan.concurrency == 1 else None
        return life.record(broadcasts, failure)

    async def _live(self, life: _Life) -> str:
        """One life up to the exit; returns why the container does not count, empty if it does."""
        life.container_id = await self._engine.create(self._plan.spec(life.index))
        life.end_step("create")
        life.set_apart(self._engine.sandbox_ms(life.container_id))
        if self._record is not None:
            await asyncio.to_thread(self._record.add, self._engine.cgroup_ids(life.container_id))
            life.step_began_s = perf_counter()
        await self._engine.start(life.container_id)
        life.end_step("start")
        process = await self._barrier.wait_for(life.container_id, self._engine.pid, life.name)
        if process is not None:
            life.kmem_bytes = await asyncio.to_thread(process.kmem_bytes)
            await asyncio.to_thread(self._knobs.apply, process.memcg)
        if not self._plan.own_program and life.kmem_bytes is None:
            life.ended_unread = process is None or await asyncio.to_thread(process.ended)
        failure = await (self._finish_own(life, process) if self._plan.own_program else self._finish_users(life))
        life.end_step("wait")
        return failure

    async def _finish_own(self, life: _Life, process: ContainerProcess | None) -> str:
        """Release our program and wait for its exit."""
        if process is not None:
            await asyncio.sleep(self._plan.hold_s)
            await asyncio.to_thread(process.release)
        status = await self._engine.wait(life.container_id, self._plan.wait_s)
        if status is None:
            return f"container {life.name} did not exit within {self._plan.wait_s:g} s"
        if process is None:
            return f"container {life.name} exited (status {status}) before its barrier"
        return f"container {life.name} exited with status {status}" if status else ""

    async def _finish_users(self, life: _Life) -> str:
        """Let a user's program run for `hold_s`; one that still runs then is no failure."""
        if not self._plan.hold_s:
            return ""
        status = await self._engine.wait(life.container_id, self._plan.hold_s)
        return f"container {life.name} exited with status {status}" if status else ""

    async def _remove(self, life: _Life, failure: str) -> str:
        """Remove the container after success, failure and cancellation; the engine limits the call's duration."""
        if not life.container_id:
            return failure
        try:
            await run_shielded(self._engine.remove(life.container_id))
        except KickwatchError as error:
            return failure or life.failure(error)
        return failure


def _first_error(group: BaseExceptionGroup[KickwatchError]) -> KickwatchError:
    """The first error in a group, at any depth."""
    inner = group.exceptions[0]
    return _first_error(inner) if isinstance(inner, BaseExceptionGroup) else inner
