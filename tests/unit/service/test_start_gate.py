"""Whether doctor may start a container: the drain file and the guard of this node."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kickwatch.configuration.types import Config, GuardConfig, ServiceConfig
from kickwatch.errors import EngineError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.pressure import Pressure
from kickwatch.service import start_gate
from kickwatch.service.start_gate import why_no_container
from kickwatch.workload.engine import EngineInfo

INFO = EngineInfo(name="docker", version="1", runtime="runc 1", cgroup_driver="cgroupfs", root="/nowhere")


class Engine:
    def __init__(self, running: int | None) -> None:
        self.running = running

    async def count_running(self) -> int:
        if self.running is None:
            raise EngineError("no answer", "")
        return self.running


async def reason(config: Config, engine: Engine, tmp_path: Path) -> str:
    cgroups = Cgroups(CgroupVersion.V2, tmp_path, "/", (), Path("/proc"))
    return await why_no_container(config, engine, INFO, cgroups)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A node without pressure, whatever this one is; the arguments of each reading."""
    read: list[Any] = []

    def pressure(root: Path, containers: int | None, _dying: object) -> Pressure:
        read.append((root, containers))
        return Pressure(containers=containers)

    monkeypatch.setattr(start_gate, "read_pressure", pressure)
    return read


async def test_a_calm_node_that_is_not_drained_may_start_one(tmp_path: Path, calm: list[Any]) -> None:
    assert await reason(Config(), Engine(3), tmp_path) == ""
    assert calm == [(Path("/nowhere"), 3)]


async def test_an_engine_that_does_not_count_its_containers_is_no_reason(tmp_path: Path) -> None:
    assert await reason(Config(), Engine(None), tmp_path) == ""


async def test_a_drain_file_says_no_before_anything_is_read(tmp_path: Path, calm: list[Any]) -> None:
    file = tmp_path / "drain"
    config = replace(Config(), service=ServiceConfig(drain_file=str(file)))
    assert await reason(config, Engine(3), tmp_path) == ""
    file.touch()
    calm.clear()
    assert await reason(config, Engine(3), tmp_path) == "drained (drain file present): not starting containers"
    assert calm == []


async def test_the_guard_says_no_with_its_figures_unless_it_is_off(tmp_path: Path) -> None:
    config = replace(Config(), guard=GuardConfig(containers=5))
    assert await reason(config, Engine(9), tmp_path) == "the guard says no: containers 9 (limit 5)"
    assert await reason(replace(config, guard=GuardConfig(enabled=False, containers=5)), Engine(9), tmp_path) == ""
