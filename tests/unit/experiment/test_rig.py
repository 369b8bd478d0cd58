"""What a rig says about its node while files cannot be read, and whether its engine has changed."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kickwatch.configuration.types import Config
from kickwatch.experiment import rig
from kickwatch.experiment.engine_setup import EngineSetup
from kickwatch.experiment.rig import RECLAIM_EVERY, Rig
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.engine import EngineInfo

INFO = EngineInfo(name="docker", version="20.10.24", runtime="runc v1", cgroup_driver="cgroupfs", root="/r")


class Engine:
    """Says what it is."""

    info_now = INFO

    async def info(self) -> EngineInfo:
        return self.info_now


def make_rig(engine: Engine) -> Rig:
    cgroups = Cgroups(CgroupVersion.V1, Path("/nowhere"), "/", (), Path("/proc"))
    armed: Any = SimpleNamespace(observatory=SimpleNamespace(cpus_online=2))
    setup = EngineSetup(Config(), engine, INFO, "i", cgroups, "image:1")  # type: ignore[arg-type]
    return Rig(setup, armed, None)  # type: ignore[arg-type]


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
    """As when descriptors run out in the middle of a trial."""
    monkeypatch.setattr(kernel, "rcu_expedited", lambda: True)
    here = make_rig(Engine())
    here.boot_id = kernel.boot_id()
    here.idle_cpus_halt = True
    before = here.node()
    assert before.idle_cpus_halt
    assert before.boot_id
    assert before.rcu_expedited

    def refused() -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(kernel, "rcu_expedited", refused)
    monkeypatch.setattr(kernel, "boot_id", lambda: "")
    assert here.node() == before


@pytest.mark.parametrize(("probe", "halt"), [(None, True), (object(), None)])
async def test_a_rig_without_a_probe_knows_from_its_start_whether_idle_cpus_halt(
    probe: object, halt: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a probe nobody asks: the answer may take an interrupt of each busy CPU."""

    async def nothing(*_: object) -> Any:
        return 0

    async def chosen(*_: object, **__: object) -> Any:
        return SimpleNamespace(engine=SimpleNamespace(close=nothing, shorten_timeouts=None), remarks=())

    async def names(*_: object) -> tuple[EngineInfo, str]:
        return INFO, ""

    cgroups = Cgroups(CgroupVersion.V1, Path("/nowhere"), "/", (), Path("/proc"))
    fakes = {"choose_engine": chosen, "resolve_names": names, "present_image": nothing, "reap_everything": nothing}
    fakes |= {"read_instance": str, "Canary": nullcontext, "Cgroups": SimpleNamespace(read=lambda: cgroups)}
    for name, fake in (fakes | {"idle_cpus_halt": lambda: True}).items():
        monkeypatch.setattr(rig, name, fake)
    monkeypatch.setattr(Rig, "warm_up", nothing)
    armed: Any = SimpleNamespace(observatory=SimpleNamespace(cpus_online=2, requests=probe))
    async with Rig.open(Config(), armed) as opened:
        assert (await asyncio.to_thread(opened.node)).idle_cpus_halt is halt


def test_where_cpus_are_isolated_dying_memcgs_are_reclaimed_seldom() -> None:
    """A reclaim makes other CPUs drain their LRU batches, isolated ones too."""
    here: Any = make_rig(Engine())
    here.armed.creation_broadcasts = lambda: None
    here.armed.observatory.isolated_cpus = ()
    assert [here.workload("0badcafe", 1).reclaims for _ in range(12)] == [True] * 12
    here = make_rig(Engine())
    here.armed.creation_broadcasts = lambda: None
    here.armed.observatory.isolated_cpus = (3,)
    reclaims = [here.workload("0badcafe", 1).reclaims for _ in range(2 * RECLAIM_EVERY)]
    assert [number for number, one in enumerate(reclaims, 1) if one] == [RECLAIM_EVERY, 2 * RECLAIM_EVERY]
