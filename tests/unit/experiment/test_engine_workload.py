"""The workload of a trial on a fake engine: what it restores, what it began however it ends, what it notes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, ImageAbsentError
from kickwatch.experiment.engine_setup import EngineSetup
from kickwatch.experiment.engine_workload import EngineWorkload, broadcasts_since
from kickwatch.experiment.kmem_accounting import KmemFacts
from kickwatch.experiment.own_work import OwnWork, Work
from kickwatch.journal.remark import Remark, RemarkKind
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.churn import BroadcastCounter, Churn, ChurnPlan
from kickwatch.workload.engine import ContainerSpec, EngineInfo
from kickwatch.workload.knobs import Knobs

INFO = EngineInfo(name="docker", version="20.10.24", runtime="runc v1", cgroup_driver="cgroupfs", root="/r")
IMAGE = "localhost/kickwatch-workload:0123456789ab"
SETUP_REMARK = Remark(RemarkKind.RUNTIME_DRIVEN, "runc is driven directly")
KNOB_REMARK = Remark(RemarkKind.KNOB_IGNORED, "the kernel ignores this knob")


class Engine:
    """Has an image or not, and counts its containers. `cancel_at`: the number of the call that cancels `task`."""

    def __init__(self) -> None:
        self.held, self.made, self.lost = True, 0, False
        self.alive: set[str] = set()
        self.created = self.calls = self.cancel_at = 0
        self.gone_at = 0
        self.task: asyncio.Task[Any] | None = None

    async def require_image(self, reference: str) -> None:
        if self.lost:
            raise EngineAnswerLostError("no answer", "")
        if not self.held:
            raise ImageAbsentError(f"the image {reference} is not on this node", f"docker pull {reference}")

    async def prepare_image(self, own_program: bytes) -> str:
        assert own_program
        self.held = True
        self.made += 1
        return IMAGE

    async def _call(self) -> None:
        self.calls += 1
        if self.calls == self.cancel_at and self.task is not None:
            self.task.cancel()
        if self.calls == self.gone_at:
            raise EngineAnswerLostError("no answer", "")
        await asyncio.sleep(0)

    async def info(self) -> EngineInfo:
        raise EngineAbsentError("no engine answers", "start it")

    async def create(self, spec: ContainerSpec) -> str:
        self.created += 1
        await self._call()
        self.alive.add(spec.name)
        return spec.name

    def cgroup_ids(self, _container_id: str) -> tuple[str, ...]:
        return ()

    def sandbox_ms(self, _container_id: str) -> None:
        """There are no pods."""

    async def start(self, _container_id: str) -> None:
        await self._call()

    async def pid(self, _container_id: str) -> int:
        return 1

    async def wait(self, _container_id: str, _timeout_s: float) -> int:
        await self._call()
        return 0

    async def remove(self, container_id: str) -> None:
        await self._call()
        self.alive.discard(container_id)


class Place:
    memcg = Path("/nowhere")

    def kmem_bytes(self) -> int:
        return 4096

    def release(self) -> None:
        """Nobody waits."""


class Barrier:
    async def wait_for(self, _container_id: str, _pid: Callable[[str], Awaitable[int]], _name: str) -> Place:
        return Place()


class IgnoredKnobs(Knobs):
    """Knobs that the kernel ignores."""

    remarks = [KNOB_REMARK]  # type: ignore[assignment]  # noqa: RUF012


class Setup(EngineSetup):
    """A setup whose churns need no kernel."""

    def knobs(self) -> Knobs:
        return IgnoredKnobs(parent=self.parent_memcg)

    def churn(self, plan: ChurnPlan, knobs: Knobs, after: BroadcastCounter) -> Churn:
        return Churn(self.engine, plan, Barrier(), knobs, after)  # type: ignore[arg-type]


class Canary:
    """Has something to restore, or not."""

    gone = ""
    batch = 0

    async def restore(self) -> str:
        gone, self.gone = self.gone, ""
        return gone

    async def create_batch(self, memcgs: int) -> None:
        self.batch = memcgs

    async def remove_batch(self) -> None:
        self.batch = 0


def workload(engine: Engine, image: str = "", version: CgroupVersion = CgroupVersion.V1) -> EngineWorkload:
    cgroups = Cgroups(version, Path("/nowhere"), "/", (), Path("/proc"))
    config = Config(workload=WorkloadConfig(image=image))
    setup = Setup(config, engine, INFO, "i", cgroups, image or IMAGE)  # type: ignore[arg-type]
    return EngineWorkload(
        setup=setup,
        canary=Canary(),  # type: ignore[arg-type]
        trial_id="0badcafe",
        creation_broadcasts=lambda: 7,
        read_node=lambda: None,  # type: ignore[arg-type, return-value]
        setup_remarks=[SETUP_REMARK],
    )


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kickwatch.experiment.engine_workload.SETTLE_S", 0.0)


# --- restore


async def test_what_is_gone_is_restored_and_each_is_logged() -> None:
    engine = Engine()
    here = workload(engine)
    with structlog.testing.capture_logs() as logs:
        await here.restore()
        assert logs == []
        engine.held, here.canary.gone = False, "the child of the canary has ended"  # type: ignore[attr-defined]
        await here.restore()
        await here.restore()
    assert engine.made == 1
    assert [(log["event"], log["log_level"]) for log in logs] == [("kickwatch.restored", "info")] * 2
    assert IMAGE in logs[0]["what"]


async def test_a_users_image_is_not_ours_to_restore() -> None:
    engine = Engine()
    engine.held = False
    with pytest.raises(ImageAbsentError, match="docker pull debian:12"):
        await workload(engine, "debian:12").restore()
    assert engine.made == 0


async def test_an_engine_that_does_not_answer_has_not_lost_its_image() -> None:
    engine = Engine()
    engine.lost = True
    with pytest.raises(EngineAnswerLostError):
        await workload(engine).restore()
    assert engine.made == 0


# --- containers


async def test_all_containers_are_begun_and_remarks_are_those_of_this_trial() -> None:
    engine = Engine()
    here = workload(engine)
    assert here.begun == 0
    assert here.notes == [SETUP_REMARK.text]
    done = await here.churn(3)
    assert [container.failure for container in done] == [""] * 3
    assert [container.creation_path_broadcasts for container in done] == [0] * 3
    assert here.begun == engine.created == 3
    assert here.remarks == [KNOB_REMARK]
    assert here.notes == [SETUP_REMARK.text, KNOB_REMARK.text]


async def test_cancelled_at_any_call_it_leaves_no_container_and_knows_what_it_began() -> None:
    whole = Engine()
    await workload(whole).churn(3)
    assert whole.calls == 12
    for number in range(1, whole.calls + 1):
        engine = Engine()
        here = workload(engine)
        engine.cancel_at = number
        engine.task = asyncio.ensure_future(here.churn(3))
        with pytest.raises(asyncio.CancelledError):
            await engine.task
        assert engine.alive == set(), f"cancelled at call {number}"
        assert here.begun == engine.created == (number + 3) // 4, f"cancelled at call {number}"
        assert here.remarks == []


async def test_bursts_of_one_trial_are_one_churn() -> None:
    """Their containers are numbered through, and the first burst's remarks are not repeated."""
    engine = Engine()
    here = workload(engine)
    here.containers = 5
    done = [container.index for _ in range(3) for container in await here.churn(2)]
    assert done == [0, 1, 2, 3, 4]
    assert here.begun == engine.created == 5
    assert here.remarks == [KNOB_REMARK]


async def test_an_engine_that_goes_away_leaves_the_number_of_containers_begun() -> None:
    engine = Engine()
    here = workload(engine)
    engine.gone_at = 6  # the second container's start
    with pytest.raises(EngineAbsentError):
        await here.churn(3)
    assert here.begun == 2


async def test_each_container_gets_the_rise_since_the_one_before() -> None:
    totals: list[int | None] = [5, 7, 7, None, 9, 12]
    rise = broadcasts_since(lambda: totals.pop(0))
    assert [await rise() for _ in range(5)] == [2, 0, None, None, 3]


# --- facts


@pytest.mark.parametrize("version", list(CgroupVersion))
@pytest.mark.parametrize(("line", "disabled"), [("ro quiet", False), ("ro cgroup.memory=nokmem", True)])
async def test_the_facts_on_kernel_memory(
    monkeypatch: pytest.MonkeyPatch, version: CgroupVersion, line: str, disabled: bool
) -> None:
    monkeypatch.setattr(kernel, "command_line", lambda: line)
    here = workload(Engine(), version=version)
    here.kernel_memory_paid = True
    deferred = version is CgroupVersion.V2
    assert await here.kmem_facts() == KmemFacts(disabled=disabled, deferred=deferred, paid=True, own_memcgs=False)


async def test_memory_is_reclaimed_only_if_it_is_this_trials_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    reclaimed: list[Path] = []
    monkeypatch.setattr("kickwatch.experiment.engine_workload.reclaim", reclaimed.append)
    here = workload(Engine())
    await here.reclaim()
    assert len(reclaimed) == 1
    here.reclaims = False
    await here.reclaim()
    assert len(reclaimed) == 1


async def test_what_reaches_isolated_cpus_during_canary_and_reclaim_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kickwatch.experiment.engine_workload.reclaim", lambda _: "")
    begun: list[tuple[Work, object]] = []

    class Own(OwnWork):
        @asynccontextmanager
        async def during(self, work: Work, observatory: object = None) -> AsyncIterator[None]:
            begun.append((work, observatory))
            yield

    here, armed = workload(Engine()), object()
    here.own, here.observatory = Own(), armed  # type: ignore[assignment]
    await here.create_batch(9)
    await here.remove_batch()
    await here.reclaim()
    assert begun == [(Work.CANARY, armed), (Work.CANARY, armed), (Work.RECLAIM, armed)]
