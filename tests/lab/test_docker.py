"""Docker in an arm64 guest: healthy containers are quiet, their BPF programs are on the bill, and a fault convicts.

A container takes 10 to 25 s there, and a pair two of its lives: 23 take up to half an hour, mostly of waiting.
"""

import os
from collections.abc import Iterator

import fault_module
import pytest
from bench import KICK, Bench

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

QUIET, BROADCASTING = 0, 3
# A start took 23 s beside other work, and one did not end in the default 30.
DOCKER = ("--set", "engine.kind=docker", "--set", "engine.runtime=", "--set", "engine.timeout_s=120")
_UNITS = "containerd.service docker.socket docker.service"
_START = f"""systemctl unmask --quiet {_UNITS}
    timeout 250 systemctl start docker && timeout 60 docker version --format '{{{{.Server.Version}}}}' && exit
    systemctl --no-pager status {_UNITS} >&2; journalctl --no-pager --lines=60 -u docker -u containerd >&2; exit 1"""


@pytest.fixture(scope="module")
def docker(bench: Bench) -> Iterator[Bench]:
    """The bench while its Docker Engine runs."""
    if not bench.arm64:
        pytest.skip("feature: only arm64's user land has Docker; on x86-64 `engines` and `debian` test it")
    if "KICKWATCH_LAB_LONG" not in os.environ:
        pytest.skip("feature: takes forty minutes, enabled by KICKWATCH_LAB_LONG=1")
    bench.keep("docker_version", bench.guest.shell(_START).output.strip())
    yield bench
    bench.guest.shell(f"systemctl stop docker.socket docker containerd; systemctl mask --quiet {_UNITS}")


def test_healthy_containers_of_docker_are_quiet(docker: Bench) -> None:
    result = docker.trial("healthy_docker", *DOCKER, containers=docker.containers)
    assert result["engine"].startswith("docker "), result["engine"]
    assert (result["containers"], result["failures"]) == (docker.containers, [])
    assert result["status"] == QUIET, (result["verdict"], result["reasons"])
    assert result["per_container"]["creation_path_broadcasts"] == 0
    programs = [cell for cell in result["bill"] if cell["origin"] == "bpf"]
    assert {cell["reason"] for cell in programs} == {KICK}
    assert sum(cell["broadcasts"] for cell in programs) >= docker.containers


def test_a_broadcast_by_the_creating_task_convicts_through_docker(docker: Bench) -> None:
    fault_module.load(docker.guest, docker.module)
    fault_module.switch(docker.guest, kick=1)
    result = docker.trial("docker_kick", *DOCKER, containers=6)
    fault_module.switch(docker.guest)
    assert result["status"] == BROADCASTING, (result["verdict"], result["reasons"])
    (cell,) = [cell for cell in result["bill"] if cell["reason"] == KICK and cell["origin"] != "bpf"]
    assert (cell["origin"], cell["path"]) == ("cgroup", "create")
    assert {"kickfault_css_online", "cgroup_mkdir"} <= {*cell["stack"]}
