"""From the configuration and the engine to a plan of containers."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kickwatch.configuration.types import Config, EngineConfig, WorkloadConfig
from kickwatch.experiment.engine_setup import EngineSetup
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.engine import EngineInfo

OWN = "localhost/kickwatch-workload:0123456789ab"


def setup(workload: WorkloadConfig, **info: Any) -> EngineSetup:
    named = {"name": "docker", "version": "28.0", "runtime": "runc 1", "cgroup_driver": "cgroupfs", "root": "/r"} | info
    cgroups = Cgroups(CgroupVersion.V1, Path("/memory"), "/", (), Path("/proc"))
    config = Config(workload=workload, engine=EngineConfig(timeout_s=20.0))
    return EngineSetup(config, None, EngineInfo(**named), "i", cgroups, workload.image or OWN)  # type: ignore[arg-type]


def test_our_own_program_is_held_and_ends_by_itself() -> None:
    plan = setup(WorkloadConfig(hold_s=1.5, concurrency=4, rate_hz=2.0)).plan("t", 23)
    assert (plan.containers, plan.concurrency, plan.rate_hz, plan.hold_s, plan.wait_s) == (23, 4, 2.0, 1.5, 20.0)
    assert plan.command == ("--deadline-ms", "21500")
    assert (plan.image, plan.own_program) == (OWN, True)


def test_a_users_program_runs_as_configured() -> None:
    plan = setup(WorkloadConfig(image="debian:12", command=("sleep", "1"))).plan("t", 1)
    assert (plan.image, plan.command, plan.own_program) == ("debian:12", ("sleep", "1"), False)


def test_with_a_tcp_limit_containers_come_one_after_the_other() -> None:
    """Each removed memcg is awaited before the next container starts."""
    assert setup(WorkloadConfig(concurrency=4, kmem_tcp_limit_bytes=1 << 20)).plan("t", 9).concurrency == 1


@pytest.mark.parametrize(
    ("info", "name", "memcg"),
    [
        ({}, "/kickwatch", "/memory/kickwatch"),
        ({"cgroup_driver": "systemd"}, "kickwatchcontainers.slice", "/memory/kickwatchcontainers.slice"),
        ({"cgroup_parent": "/own/kickwatch"}, "/own/kickwatch", "/memory/own/kickwatch"),
    ],
)
def test_the_cgroup_parent_is_named_as_the_engine_expects(info: dict[str, str], name: str, memcg: str) -> None:
    made = setup(WorkloadConfig(), **info)
    assert (made.parent_name, made.parent_memcg, made.plan("t", 1).cgroup_parent) == (name, Path(memcg), name)


def test_an_engine_without_a_daemon_is_its_program() -> None:
    assert setup(WorkloadConfig()).endpoint == Path("/var/run/docker.sock")
    assert setup(WorkloadConfig(), endpoint="/usr/bin/runc").endpoint == Path("/usr/bin/runc")


@pytest.mark.parametrize("version", list(CgroupVersion))
def test_containers_have_memcgs_where_their_parent_is_a_memcg(tmp_path: Path, version: CgroupVersion) -> None:
    cgroups = Cgroups(version, tmp_path, "/", (), Path("/proc"))
    made = dataclasses.replace(setup(WorkloadConfig()), cgroups=cgroups)
    assert not made.containers_have_memcgs()
    (tmp_path / "kickwatch").mkdir()
    (tmp_path / "kickwatch/cgroup.subtree_control").write_text("cpu pids\n")
    assert made.containers_have_memcgs() is (version is CgroupVersion.V1)
    (tmp_path / "kickwatch/cgroup.subtree_control").write_text("cpu memory pids\n")
    assert made.containers_have_memcgs()
