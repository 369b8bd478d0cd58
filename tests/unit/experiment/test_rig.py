"""What a rig says of its node while files cannot be read, and what it makes again. The engine is a fake."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from kickwatch.configuration.types import Config, WorkloadConfig
from kickwatch.errors import EngineAnswerLostError, ImageAbsentError
from kickwatch.experiment.rig import Rig
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.engine import EngineInfo

INFO = EngineInfo(name="docker", version="20.10.24", runtime="runc v1", cgroup_driver="cgroupfs", root="/r")
IMAGE = "localhost/kickwatch-workload:0123456789ab"


class Engine:
    """Holds an image or not."""

    def __init__(self) -> None:
        self.info_now, self.held, self.made, self.lost = INFO, True, 0, False

    async def info(self) -> EngineInfo:
        return self.info_now

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


class Canary:
    """Has something to make again, or not."""

    gone = ""

    async def restore(self) -> str:
        gone, self.gone = self.gone, ""
        return gone


def make_rig(engine: Engine, image: str = "") -> Rig:
    cgroups = Cgroups(CgroupVersion.V1, Path("/nowhere"), "/", (), Path("/proc"))
    armed: Any = SimpleNamespace(observatory=SimpleNamespace(cpus_online=2))
    config = Config(workload=WorkloadConfig(image=image))
    return Rig(config, engine, INFO, "i", cgroups, image or IMAGE, armed, Canary())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kickwatch.experiment.rig._WARM_UP_SETTLE_S", 0.0)


async def test_what_is_gone_is_made_again_and_each_is_logged() -> None:
    engine = Engine()
    here = make_rig(engine)
    with structlog.testing.capture_logs() as logs:
        await here.restore()
        assert logs == []
        engine.held, here.canary.gone = False, "the child of the canary has ended"  # type: ignore[attr-defined]
        await here.restore()
        await here.restore()
    assert engine.made == 1
    assert [(log["event"], log["log_level"]) for log in logs] == [("kickwatch.restored", "info")] * 2
    assert IMAGE in logs[0]["what"]


async def test_a_users_image_is_not_ours_to_make() -> None:
    engine = Engine()
    engine.held = False
    with pytest.raises(ImageAbsentError, match="docker pull debian:12"):
        await make_rig(engine, "debian:12").restore()
    assert engine.made == 0


async def test_an_engine_that_does_not_answer_has_not_lost_its_image() -> None:
    engine = Engine()
    engine.lost = True
    with pytest.raises(EngineAnswerLostError):
        await make_rig(engine).restore()
    assert engine.made == 0


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"runtime": "runc N/A"}, False),
        ({"version": "unknown", "runtime": "unknown"}, False),
        ({"runtime": "runc v2"}, True),
        ({"version": "28.0"}, True),
        ({"cgroup_driver": "systemd"}, True),
    ],
)
async def test_an_engine_that_is_short_of_a_name_has_not_changed(now: dict[str, str], changed: bool) -> None:
    engine = Engine()
    fields = {name: getattr(INFO, name) for name in INFO.__struct_fields__}
    engine.info_now = EngineInfo(**{**fields, **now})
    assert await make_rig(engine).engine_changed() is changed


def test_files_that_cannot_be_read_make_no_other_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where descriptors run out in the middle of a trial."""
    monkeypatch.setattr(kernel, "rcu_expedited", lambda: True)
    here = make_rig(Engine())
    here.boot_id = kernel.boot_id()
    before = here.node()
    assert before.boot_id
    assert before.rcu_expedited

    def refused() -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(kernel, "rcu_expedited", refused)
    monkeypatch.setattr(kernel, "boot_id", lambda: "")
    assert here.node() == before
