"""Steps of the engine are noted with their times, whether they succeed or not; all else is the engine's own."""

from itertools import count
from typing import Any, cast

import pytest

from kickwatch.errors import EngineError
from kickwatch.experiment.trace_run import _containers_of
from kickwatch.experiment.traced_engine import TracedEngine
from kickwatch.trace.recording import Step
from kickwatch.workload.engine import ContainerSpec, Engine


class FakeEngine:
    """Its containers are called id-NAME; starting one fails if `refuses`."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses

    async def create(self, spec: ContainerSpec) -> str:
        return f"id-{spec.name}"

    def cgroup_ids(self, _container_id: str) -> tuple[str, ...]:
        return ()

    def sandbox_ms(self, _container_id: str) -> None:
        """There are no pods."""

    async def start(self, container_id: str) -> None:
        if self.refuses:
            raise EngineError(f"{container_id} cannot start")

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        return len(container_id) if timeout_s else None

    async def remove(self, container_id: str) -> None:
        assert container_id

    async def pid(self, container_id: str) -> int:
        return len(container_id)


def spec(index: int) -> ContainerSpec:
    nothing: dict[str, Any] = dict.fromkeys(("instance", "trial", "image", "network", "cgroup_parent"), "")
    return ContainerSpec(name=f"kickwatch-abc-{index}", command=(), **nothing)


def traced(engine: FakeEngine) -> TracedEngine:
    return TracedEngine(cast("Engine", engine), now_ns=count(100).__next__)


async def test_each_step_has_its_container_and_its_times() -> None:
    made = traced(FakeEngine())
    engine = made.as_engine()
    for index in (0, 1):
        container_id = await engine.create(spec(index))
        await engine.start(container_id)
        assert await engine.wait(container_id, 1.0) == len(container_id)
        assert await engine.pid(container_id) == len(container_id)
        await engine.remove(container_id)
    assert [(step.container, step.name) for step in made.steps] == [
        (index, name) for index in (0, 1) for name in ("create", "start", "wait", "remove")
    ]
    assert [(step.began_ns, step.ended_ns) for step in made.steps] == [(at, at + 1) for at in range(100, 116, 2)]
    assert made.ids == {0: "id-kickwatch-abc-0", 1: "id-kickwatch-abc-1"}


async def test_a_step_that_fails_is_noted_and_raises() -> None:
    made = traced(FakeEngine(refuses=True))
    container_id = await made.as_engine().create(spec(0))
    with pytest.raises(EngineError):
        await made.as_engine().start(container_id)
    assert made.steps[-1] == Step(0, "start", 102, 103, failed=True)


def test_processes_are_ours_by_their_cgroup(tmp_path: Any) -> None:
    for pid, group in ((10, "0::/kickwatch/abc"), (11, "4:memory:/customer"), (12, "1:name=systemd:/docker-def.scope")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(group)
    assert _containers_of({10, 11, 12, 13}, {0: "abc", 1: "def"}, tmp_path) == {10: 0, 12: 1}
