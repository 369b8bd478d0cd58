"""Churn with a fake engine, barrier and knobs that record their calls, and fail or hang at a given step."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickwatch.errors import (
    CgroupError,
    EngineAbsentError,
    EngineAnswerLostError,
    EngineError,
    KickwatchError,
    NoHostProcessError,
)
from kickwatch.workload.churn import Churn, ChurnPlan
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.engine import ContainerSpec, EngineInfo

INFO = EngineInfo(name="fake", version="1", runtime="none", cgroup_driver="cgroupfs", root="/nowhere")
STEPS = ("create", "start", "barrier", "kmem", "knobs", "release", "wait", "remove", "after_knobs", "count")
THREADED = {"kmem", "knobs", "release"}


@dataclass
class Stage:
    """Shared by the fakes: the calls in order, the existing containers, which step fails and which hangs."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    specs: list[ContainerSpec] = field(default_factory=list)
    created_s: list[float] = field(default_factory=list)
    existing: set[str] = field(default_factory=set)
    most_existing: int = 0
    fail: dict[str, Exception] = field(default_factory=dict)
    fail_only: int | None = None
    hang: str = ""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    statuses: list[int | None] = field(default_factory=list)
    wait_limits: list[float] = field(default_factory=list)
    at_barrier: bool = True
    sandbox_ms: float | None = None
    stuck_until_s: float = 0.0  # on the loop's clock: no removal completes before
    of_worker: dict[object, str] = field(default_factory=dict)

    @property
    def current(self) -> str:
        """The container of the calling worker."""
        return self.of_worker[asyncio.current_task()]

    def note(self, step: str, container: str) -> None:
        """Record a step; raise its error, if it has one."""
        self.calls.append((step, container))
        error = self.fail.get(step)
        if error is not None and self.fail_only in {None, int(container.rpartition("-")[2])}:
            raise error

    async def step(self, step: str, container: str) -> None:
        """Like `note`, then let other tasks run; the step `hang` never returns."""
        self.note(step, container)
        await asyncio.sleep(0)
        if step == self.hang:
            self.hanging.set()
            if step != "remove":  # a removal is always bounded
                await asyncio.Event().wait()

    def steps(self, container: str) -> list[str]:
        """The steps of one container."""
        return [step for step, name in self.calls if name == container]


@dataclass
class FakeEngine:
    """Follows the Engine protocol: a cancelled create leaves nothing, a removal is bounded."""

    stage: Stage
    remove_s: float = 0.0

    async def info(self) -> EngineInfo:
        await self.stage.step("info", "engine-0")
        return INFO

    def cgroup_ids(self, container_id: str) -> tuple[str, ...]:
        return (container_id,)

    def sandbox_ms(self, _container_id: str) -> float | None:
        return self.stage.sandbox_ms

    async def create(self, spec: ContainerSpec) -> str:
        self.stage.specs.append(spec)
        self.stage.of_worker[asyncio.current_task()] = spec.name
        self.stage.created_s.append(asyncio.get_running_loop().time())
        await self.stage.step("create", spec.name)
        self.stage.existing.add(spec.name)
        self.stage.most_existing = max(self.stage.most_existing, len(self.stage.existing))
        return spec.name  # the id is the name, so the other calls show which container they are for

    async def start(self, container_id: str) -> None:
        await self.stage.step("start", container_id)

    async def pid(self, container_id: str) -> int:
        await self.stage.step("pid", container_id)
        return 1

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        self.stage.wait_limits.append(timeout_s)
        await self.stage.step("wait", container_id)
        return self.stage.statuses.pop(0) if self.stage.statuses else 0

    async def remove(self, container_id: str) -> None:
        await self.stage.step("remove", container_id)
        await asyncio.sleep(max(self.remove_s, self.stage.stuck_until_s - asyncio.get_running_loop().time()))
        self.stage.existing.discard(container_id)

    async def prepare_image(self, own_program: bytes) -> str:
        raise NotImplementedError

    async def require_image(self, reference: str) -> None:
        raise NotImplementedError

    async def own_containers(self, instance: str) -> Sequence[str]:
        raise NotImplementedError

    async def remove_image(self, reference: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@dataclass
class FakeProcess:
    stage: Stage
    container: str

    @property
    def memcg(self) -> Path:
        return Path("/memcg") / self.container

    def kmem_bytes(self) -> int:
        self.stage.note("kmem", self.container)
        return 4096

    def release(self) -> None:
        self.stage.note("release", self.container)


@dataclass
class FakeBarrier:
    stage: Stage

    async def wait_for(
        self, container_id: str, _inspect_pid: Callable[[str], Awaitable[int]], name: str
    ) -> FakeProcess | None:
        assert name
        await self.stage.step("barrier", container_id)
        return FakeProcess(self.stage, container_id) if self.stage.at_barrier else None


@dataclass
class FakeKnobs:
    stage: Stage

    def apply(self, memcg: Path) -> None:
        self.stage.note("knobs", memcg.name)

    async def after_container(self) -> None:
        await self.stage.step("after_knobs", self.stage.current)


def plan(**changes: Any) -> ChurnPlan:
    template = {
        "image": "own:1", "command": ("--deadline-ms", "1"), "network": "none", "instance": "i", "trial": "t",
        "cgroup_parent": "/kickwatch", "containers": 3,
    }  # fmt: skip
    return ChurnPlan(**(template | changes))


def churn(stage: Stage, churn_plan: ChurnPlan, *, remove_s: float = 0.0) -> Churn:
    async def count_broadcasts() -> int | None:
        await stage.step("count", stage.current)
        return 5

    return Churn(FakeEngine(stage, remove_s), churn_plan, FakeBarrier(stage), FakeKnobs(stage), count_broadcasts)


async def test_the_steps_of_one_container_are_in_order() -> None:
    stage = Stage()
    (container,) = await churn(stage, plan(containers=1)).run()
    assert stage.steps("kickwatch-t-0") == list(STEPS)
    assert container.failure == ""
    assert container.kmem_bytes == 4096
    assert container.creation_path_broadcasts == 5
    assert min(container.create_ms, container.start_ms, container.wait_ms, container.remove_ms) > 0


async def test_a_container_is_recorded_before_it_has_a_process(tmp_path: Path) -> None:
    """A kickwatch that is killed during the start leaves a process, and the next one must know it for its own."""
    stage = Stage(fail={"start": EngineError("could not", "try")})
    begun = churn(stage, plan(containers=1))
    begun._record = ContainerRecord(tmp_path / "containers")
    (container,) = await begun.run()
    assert container.failure
    assert await asyncio.to_thread(begun._record.read) == {"kickwatch-t-0"}


async def test_with_concurrency_one_each_container_is_removed_before_the_next() -> None:
    stage = Stage()
    done = await churn(stage, plan(containers=3)).run()
    assert [step for step, _ in stage.calls] == list(STEPS) * 3
    assert [container.index for container in done] == [0, 1, 2]
    assert stage.most_existing == 1


@pytest.mark.parametrize("step", ["start", "barrier", "kmem", "knobs", "release", "wait"])
@pytest.mark.parametrize("error", [EngineError("could not", "try"), CgroupError("file", "root")])
async def test_a_failure_at_any_step_removes_the_container_and_names_it(step: str, error: KickwatchError) -> None:
    stage = Stage(fail={step: error}, fail_only=1)
    done = await churn(stage, plan(containers=3)).run()
    assert [bool(container.failure) for container in done] == [False, True, False]
    assert "kickwatch-t-1" in done[1].failure
    assert str(error) in done[1].failure
    assert stage.steps("kickwatch-t-1")[-3:] == ["remove", "after_knobs", "count"]
    assert stage.existing == set()


async def test_a_runtime_without_host_processes_ends_the_churn_with_its_first_container() -> None:
    stage = Stage(fail={"barrier": NoHostProcessError("runsc runs the program in a sandbox", "set engine.runtime")})
    with pytest.raises(NoHostProcessError):
        await churn(stage, plan(containers=3)).run()
    assert [name for step, name in stage.calls if step == "create"] == ["kickwatch-t-0"]
    assert stage.existing == set()


async def test_a_create_that_fails_leaves_nothing_to_remove() -> None:
    stage = Stage(fail={"create": EngineError("no space left")}, fail_only=0)
    done = await churn(stage, plan(containers=2)).run()
    assert done[0].failure == "container kickwatch-t-0: no space left"
    assert done[1].failure == ""
    assert "remove" not in stage.steps("kickwatch-t-0")


async def test_a_failed_removal_does_not_replace_an_earlier_failure() -> None:
    stage = Stage(fail={"remove": EngineError("it is stuck")}, fail_only=0)
    done = await churn(stage, plan(containers=1)).run()
    assert done[0].failure == "container kickwatch-t-0: it is stuck"
    stage = Stage(fail={"remove": EngineError("it is stuck"), "start": EngineError("no runc")}, fail_only=0)
    done = await churn(stage, plan(containers=1)).run()
    assert "no runc" in done[0].failure


async def test_the_containers_name_is_not_repeated() -> None:
    stage = Stage(fail={"start": EngineError("could not start kickwatch-t-0")})
    (container,) = await churn(stage, plan(containers=1)).run()
    assert container.failure == "could not start kickwatch-t-0"


@pytest.mark.parametrize("step", [step for step in STEPS if step not in THREADED])
@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_cancelling_at_any_step_removes_everything(step: str, cancellations: int) -> None:
    stage = Stage(hang=step)
    concurrency = 1 if step == "count" else 2
    task = asyncio.create_task(churn(stage, plan(containers=4, concurrency=concurrency), remove_s=0.05).run())
    async with asyncio.timeout(30):
        await stage.hanging.wait()
        for _ in range(cancellations):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert stage.existing == set()
    started = {name for call, name in stage.calls if call == "start"}
    assert started <= {name for call, name in stage.calls if call == "remove"}


async def test_an_engine_lost_during_churn_raises_one_plain_error() -> None:
    lost = EngineAnswerLostError("could not wait", "is it alive?")
    stage = Stage(fail={"wait": lost, "info": EngineAbsentError("no engine answers", "start it")})
    with pytest.raises(EngineAbsentError, match="no engine answers"):
        await churn(stage, plan(containers=12, concurrency=4)).run()
    created = {name for step, name in stage.calls if step == "create"}
    removed = {name for step, name in stage.calls if step == "remove"}
    assert 0 < len(created) <= 4
    assert removed == created


async def test_a_lost_answer_of_a_live_engine_fails_one_container() -> None:
    stage = Stage(fail={"start": EngineAnswerLostError("no answer within 1 s")}, fail_only=1)
    done = await churn(stage, plan(containers=3)).run()
    assert [bool(container.failure) for container in done] == [False, True, False]
    assert ("info", "engine-0") in stage.calls


async def test_an_error_that_is_no_containers_is_raised_plain_after_the_removals() -> None:
    stage = Stage(fail={"after_knobs": CgroupError("/proc/cgroups cannot be read")}, fail_only=0)
    with pytest.raises(CgroupError, match="/proc/cgroups"):
        await churn(stage, plan(containers=6, concurrency=3), remove_s=0.02).run()
    assert stage.existing == set()


async def test_a_bug_is_not_recorded_as_a_containers_failure() -> None:
    stage = Stage(fail={"barrier": ZeroDivisionError()})
    with pytest.raises(ExceptionGroup) as caught:
        await churn(stage, plan(containers=2)).run()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert stage.existing == set()


@given(containers=st.integers(1, 12), concurrency=st.integers(1, 6))
def test_concurrency_never_exceeds_the_plan(containers: int, concurrency: int) -> None:
    async def run() -> None:
        stage = Stage()
        done = await churn(stage, plan(containers=containers, concurrency=concurrency)).run()
        assert [container.index for container in done] == list(range(containers))
        assert stage.most_existing <= concurrency
        assert len({spec.name for spec in stage.specs}) == containers
        assert all((container.creation_path_broadcasts is None) == (concurrency > 1) for container in done)

    asyncio.run(run())


async def test_all_workers_are_used() -> None:
    stage = Stage()
    await churn(stage, plan(containers=9, concurrency=3), remove_s=0.01).run()
    assert stage.most_existing == 3


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting, so times are exact on a loaded machine."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(JumpingSelector(self))

    def time(self) -> float:
        return self.now


class JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTime) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.now += timeout or 0.0
        return super().select(0)


def creation_times_s(churn_plan: ChurnPlan, life_s: float, stuck_until_s: float = 0.0) -> list[float]:
    """When each container of a churn of users' programs is created, if each lives for `life_s`."""
    stage = Stage(at_barrier=False, stuck_until_s=stuck_until_s)
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        done = runner.run(churn(stage, churn_plan, remove_s=life_s).run())
    assert not any(container.failure for container in done)
    return stage.created_s


@pytest.mark.parametrize("concurrency", [1, 3])
def test_pacing_spaces_the_creations(concurrency: int) -> None:
    created_s = creation_times_s(plan(containers=6, concurrency=concurrency, rate_hz=50.0, own_program=False), 0.001)
    assert created_s == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.10], abs=0.001)


def test_containers_slower_than_the_rate_follow_without_a_pause() -> None:
    created_s = creation_times_s(plan(containers=4, rate_hz=50.0, own_program=False), 1.0)
    assert created_s == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=0.001)


def test_after_a_stall_the_rate_still_limits() -> None:
    created_s = creation_times_s(
        plan(containers=6, concurrency=3, rate_hz=2.0, own_program=False), 0.0, stuck_until_s=10.0
    )
    assert created_s == pytest.approx([0.0, 0.5, 1.0, 10.0, 10.5, 11.0], abs=0.001)


def test_without_a_rate_there_is_no_pause() -> None:
    assert creation_times_s(plan(containers=5, own_program=False), 0.0)[-1] == pytest.approx(0.0)


async def test_own_program_that_exits_before_its_barrier_fails() -> None:
    stage = Stage(at_barrier=False, statuses=[7])
    (container,) = await churn(stage, plan(containers=1)).run()
    assert container.failure == "container kickwatch-t-0 exited (status 7) before its barrier"
    assert container.kmem_bytes is None


@pytest.mark.parametrize(
    ("status", "failure"), [(None, "did not exit within 3.5 s"), (3, "exited with status 3"), (0, "")]
)
async def test_own_program_must_exit_with_status_zero(status: int | None, failure: str) -> None:
    stage = Stage(statuses=[status])
    (container,) = await churn(stage, plan(containers=1, wait_s=3.5, hold_s=0.01)).run()
    assert container.failure.removeprefix("container kickwatch-t-0 ") == failure
    assert stage.wait_limits == [3.5]
    assert stage.existing == set()


async def test_own_program_is_held_before_its_release() -> None:
    stage = Stage()
    (container,) = await churn(stage, plan(containers=1, hold_s=0.05)).run()
    assert container.wait_ms >= 45


async def test_a_users_program_may_run_for_hold_s_and_is_removed() -> None:
    stage = Stage(statuses=[None])
    (container,) = await churn(stage, plan(containers=1, own_program=False, hold_s=0.7)).run()
    assert container.failure == ""
    assert stage.wait_limits == [0.7]
    assert stage.steps("kickwatch-t-0") == [
        "create", "start", "barrier", "kmem", "knobs", "wait", "remove", "after_knobs", "count",
    ]  # fmt: skip


async def test_a_users_program_without_hold_s_is_removed_at_once() -> None:
    stage = Stage()
    (container,) = await churn(stage, plan(containers=1, own_program=False)).run()
    assert container.failure == ""
    assert "wait" not in stage.steps("kickwatch-t-0")


async def test_a_users_program_that_exits_at_once_counts() -> None:
    stage = Stage(at_barrier=False)
    (container,) = await churn(stage, plan(containers=1, own_program=False, hold_s=1)).run()
    assert (container.failure, container.kmem_bytes, container.ended_unread) == ("", None, True)


async def test_a_users_program_that_ends_while_its_memcg_is_read_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "kmem_bytes", lambda _: None)
    for ended in (True, False):
        monkeypatch.setattr(FakeProcess, "ended", lambda _, ended=ended: ended, raising=False)
        (container,) = await churn(Stage(), plan(containers=1, own_program=False)).run()
        assert container.ended_unread is ended


async def test_our_own_program_is_never_taken_for_one_that_ended_before() -> None:
    """It waits at its barrier: a memcg without a figure is unknown."""
    stage = Stage(at_barrier=False)
    (container,) = await churn(stage, plan(containers=1)).run()
    assert (container.ended_unread, bool(container.failure)) == (False, True)


async def test_a_users_program_with_a_nonzero_status_fails() -> None:
    stage = Stage(statuses=[127])
    (container,) = await churn(stage, plan(containers=1, own_program=False, hold_s=1)).run()
    assert container.failure == "container kickwatch-t-0 exited with status 127"


def test_only_our_own_program_has_a_pids_limit() -> None:
    assert plan().spec(0).pids_limit == 64
    assert plan(own_program=False).spec(0).pids_limit == 0
    assert plan().spec(4).name == "kickwatch-t-4"
