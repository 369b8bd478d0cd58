"""doctor's one container: when none is started, what its failure says, and that nothing of it is left."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.errors import CgroupError, EngineAbsentError, EngineError, ImageAbsentError
from kickwatch.experiment import engine_setup, one_container
from kickwatch.experiment.capabilities import container_capability
from kickwatch.experiment.capability import Capability, blind
from kickwatch.experiment.engine_setup import EngineSetup
from kickwatch.experiment.one_container import ContainerTried, try_container, what_is_wrong
from kickwatch.model import Container
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.lock import NodeLock
from kickwatch.workload.churn import Churn, ChurnPlan
from kickwatch.workload.engine import ContainerSpec, Engine, EngineInfo
from kickwatch.workload.engine_choice import ChosenEngine
from kickwatch.workload.image import image_reference
from kickwatch.workload.knobs import Knobs

INFO = EngineInfo(name="docker", version="20.10.24", runtime="runc v1", cgroup_driver="cgroupfs", root="/r")
ENGINE = Capability(name="container engine", satisfied=True, detail="docker", needed=True)


class FakeEngine:
    """Has containers and images; `hang` stops at a start."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.images: set[str] = set()
        self.created = 0
        self.closed = self.hurried = False
        self.hang: asyncio.Event | None = None
        self.refuses: Exception | None = None
        self.specs: list[ContainerSpec] = []

    async def prepare_image(self, own_program: bytes) -> str:
        reference = image_reference(own_program)
        self.images.add(reference)
        return reference

    async def require_image(self, reference: str) -> None:
        raise ImageAbsentError(f"the image {reference} is not on this node", f"docker pull {reference}")

    async def remove_image(self, reference: str) -> None:
        self.images.discard(reference)

    def cgroup_ids(self, _container_id: str) -> tuple[str, ...]:
        return ()

    def sandbox_ms(self, _container_id: str) -> None:
        """There are no pods."""

    async def create(self, spec: ContainerSpec) -> str:
        self.created += 1
        self.specs.append(spec)
        if self.refuses is not None:
            raise self.refuses
        self.alive.add(spec.name)
        return spec.name

    async def start(self, _container_id: str) -> None:
        await asyncio.sleep(0.002)
        if self.hang is not None:
            self.hang.set()
            await asyncio.Event().wait()

    async def pid(self, _container_id: str) -> int:
        return 1

    async def wait(self, _container_id: str, _timeout_s: float) -> int:
        return 0

    async def remove(self, container_id: str) -> None:
        self.alive.discard(container_id)

    def shorten_timeouts(self) -> None:
        self.hurried = True

    async def close(self) -> None:
        self.closed = True


class Place:
    memcg = Path("/nowhere")

    def kmem_bytes(self) -> int | None:
        return 4096

    def release(self) -> None:
        """Nobody waits."""


class Barrier:
    hidden = False

    async def wait_for(self, _container_id: str, _pid: Callable[[str], Awaitable[int]], _name: str) -> Place:
        if self.hidden:
            raise CgroupError("it lists processes that are not visible here", "run in the host's pid namespace")
        return Place()


@pytest.fixture
def reaped() -> list[str]:
    """The instances that were cleaned up."""
    return []


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reaped: list[str]) -> FakeEngine:
    """A node with this engine, on which no real lock is taken and no cgroup is made."""
    found = FakeEngine()

    async def choose(_config: Config) -> ChosenEngine:
        return ChosenEngine(found, INFO, "it answers")  # type: ignore[arg-type]

    async def reap(_engine: Engine, _info: EngineInfo, instance: str, _cgroups: Cgroups) -> int:
        reaped.append(instance)
        return 0

    async def program() -> bytes:
        return b"program"

    def churn(self: EngineSetup, plan: ChurnPlan, knobs: Knobs, after: Any) -> Churn:
        return Churn(self.engine, plan, Barrier(), knobs, after)  # type: ignore[arg-type]

    monkeypatch.setattr(one_container, "choose_engine", choose)
    monkeypatch.setattr(one_container, "reap_everything", reap)
    monkeypatch.setattr(engine_setup, "own_program", program)
    monkeypatch.setattr(one_container, "NodeLock", lambda: NodeLock(tmp_path / "lock"))
    cgroups = Cgroups(CgroupVersion.V1, tmp_path, "/", (), Path("/proc"))
    monkeypatch.setattr(one_container.Cgroups, "read", classmethod(lambda *_: cgroups))
    monkeypatch.setattr(EngineSetup, "churn", churn)
    return found


async def test_it_is_started_and_everything_is_removed(engine: FakeEngine, reaped: list[str]) -> None:
    tried = await try_container(Config())
    assert (tried.started, tried.skipped, tried.failure, tried.kmem_bytes) == (True, "", "", 4096)
    assert engine.created == 1
    assert (engine.alive, engine.images, engine.closed, len(reaped)) == (set(), set(), True, 1)
    found = container_capability(tried, ENGINE)
    assert found.satisfied
    assert found.detail.startswith("started and removed: 4 KiB of kernel memory charged")


async def test_a_container_is_not_held_as_long_as_a_trials(engine: FakeEngine) -> None:
    config = replace(Config(), workload=WorkloadConfig(hold_s=3600.0, rate_hz=0.001))
    assert (await asyncio.wait_for(try_container(config), 60)).started
    assert engine.created == 1


async def test_a_passive_kickwatch_starts_none_and_asks_no_engine(engine: FakeEngine) -> None:
    tried = await try_container(replace(Config(), workload=WorkloadConfig(enabled=False)))
    assert "workload.enabled is false" in tried.skipped
    assert (engine.created, engine.closed) == (0, False)
    found = container_capability(tried, ENGINE)
    assert (found.satisfied, found.tried) == (True, False)


async def test_none_is_started_while_another_kickwatch_holds_the_lock(engine: FakeEngine, tmp_path: Path) -> None:
    with NodeLock(tmp_path / "lock"):
        tried = await try_container(Config())
    assert "another kickwatch is running experiments on this node" in tried.skipped
    assert engine.created == 0
    assert not blind([container_capability(tried, ENGINE)])


async def test_none_is_started_if_guard_or_drain_say_no(engine: FakeEngine) -> None:
    async def drained(_engine: Engine, info: EngineInfo, _cgroups: Cgroups) -> str:
        assert info is INFO
        return "drained (drain file present): not starting containers"

    tried = await try_container(Config(), drained)
    assert tried.skipped.startswith("drained")
    assert (engine.created, engine.images, engine.closed) == (0, set(), True)


async def test_a_sandbox_that_hides_its_processes_shows(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Barrier, "hidden", True)
    tried = await try_container(Config())
    assert "not visible here: run in the host's pid namespace" in tried.failure
    assert (engine.alive, engine.images, engine.closed) == (set(), set(), True)
    found = container_capability(tried, ENGINE)
    assert blind([found])
    assert found.remedy


async def test_a_container_without_a_memory_controller_shows(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "kmem_bytes", lambda _: None)
    tried = await try_container(Config())
    assert engine.created == 1
    assert tried.failure == "its memory cgroup shows no kernel memory"
    assert "memory controller" in tried.remedy


@pytest.mark.parametrize(("version", "wrong"), [(CgroupVersion.V1, True), (CgroupVersion.V2, False)])
def test_a_figure_of_zero_is_wrong_where_it_is_a_counter(version: CgroupVersion, wrong: bool) -> None:
    failure, remedy = what_is_wrong(Container(index=0, kmem_bytes=0), version)
    assert (bool(failure), bool(remedy)) == (wrong, wrong)


def test_a_users_program_that_ended_at_once_is_no_failure() -> None:
    assert what_is_wrong(Container(index=0, ended_unread=True), CgroupVersion.V1) == ("", "")


async def test_an_engine_that_refuses_the_container_shows(engine: FakeEngine) -> None:
    engine.refuses = EngineError("the volume driver is out of order", "repair it")
    tried = await try_container(Config())
    assert "the volume driver is out of order" in tried.failure
    assert (tried.started, engine.images, engine.closed) == (False, set(), True)


async def test_a_missing_image_of_the_user_is_named(engine: FakeEngine) -> None:
    tried = await try_container(replace(Config(), workload=WorkloadConfig(image="debian:12")))
    assert (tried.failure, tried.remedy) == ("the image debian:12 is not on this node", "docker pull debian:12")
    assert (engine.created, engine.closed) == (0, True)


async def test_without_an_engine_the_failure_is_the_engines(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def absent(_config: Config) -> ChosenEngine:
        raise EngineAbsentError("no engine answers", "start it")

    monkeypatch.setattr(one_container, "choose_engine", absent)
    tried = await try_container(Config())
    assert (tried.failure, tried.remedy, engine.created) == ("no engine answers", "start it", 0)


def test_a_missing_engine_is_one_loss_and_not_two() -> None:
    missing = Capability(name="container engine", satisfied=False, detail="no engine answers", needed=True)
    found = container_capability(ContainerTried(failure="no engine answers", remedy="start it"), missing)
    assert (found.satisfied, found.tried) == (True, False)
    assert found.detail == "not started: no container engine can be used"
    assert blind([missing, found])


async def test_an_interruption_removes_it(engine: FakeEngine, tmp_path: Path, reaped: list[str]) -> None:
    engine.hang = asyncio.Event()
    trying = asyncio.create_task(try_container(Config()))
    await engine.hang.wait()
    assert len(engine.alive) == 1
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert (engine.alive, engine.images, engine.closed, len(reaped)) == (set(), set(), True, 1)
    with NodeLock(tmp_path / "lock"):
        """The lock is free again."""


def test_what_was_not_tried_says_so() -> None:
    found = container_capability(ContainerTried(skipped="--no-container"), ENGINE)
    assert (found.detail, found.tried, found.satisfied) == ("not started: --no-container", False, True)
