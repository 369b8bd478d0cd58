"""Docker in a guest: healthy containers are quiet, their BPF programs are on the bill, and a fault convicts.

The release's own on 5.10 (20.10.5, in a file system of bullseye), the user land's on arm64. There a container takes 10
to 25 s, and a pair would take two of its lives: the trials compare whole windows. Such a window lasts ten minutes, in
which khugepaged collapses pages of the engine, with a broadcast each; without huge pages it does not.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fault_module
import old_engines
import pytest
from archive import Architecture, Suite
from bench import KICK, Bench
from guest import booted
from shell import cache, run
from userland import bare_of, build_wheel, disk_of, install

from cached_root import locked

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

QUIET, BROADCASTING = 0, 3
_X86_PROGRAMS = {"do_flush_tlb_all", "do_kernel_range_flush", "__cpa_flush_all", "do_sync_core"}  # before 5.18
# A start took 23 s beside other work, and one did not end in the default 30.
_SETTINGS = ("engine.kind=docker", "engine.runtime=", "engine.timeout_s=120", "trial.design=whole")
_TRIAL = [word for setting in _SETTINGS for word in ("--set", setting)]
_UNITS = "containerd.service docker.socket docker.service"
_NO_HUGE_PAGES = "echo never > /sys/kernel/mm/transparent_hugepage/enabled"
_START = f"""{_NO_HUGE_PAGES}; systemctl unmask --quiet {_UNITS}
    timeout 250 systemctl start docker && timeout 60 docker version --format '{{{{.Server.Version}}}}' && exit
    systemctl --no-pager status {_UNITS} >&2; journalctl --no-pager --lines=60 -u docker -u containerd >&2; exit 1"""
# The engine of another release sees the guest as its own root does, but its programs and libraries are its own.
_TREE = "/opt/engine"
_FOREIGN = f"""{_NO_HUGE_PAGES}; modprobe overlay; mkdir -p /var/lib/docker
    mount --bind {_TREE} {_TREE}; mount --make-private {_TREE}
    for place in proc sys dev run var/lib/docker; do mount --rbind /$place {_TREE}/$place; done
    systemd-run --quiet --unit=engine --property=Delegate=yes --property=RootDirectory={_TREE} \\
        --setenv=PATH=/usr/sbin:/usr/bin:/sbin:/bin dockerd --bridge none --iptables=false --ip-masq=false
    for second in $(seq 120); do
        chroot {_TREE} docker version --format '{{{{.Server.Version}}}}' 2>/dev/null && exit; sleep 1
    done
    journalctl --no-pager --lines=60 -u engine >&2; exit 1"""


@pytest.fixture(scope="module")
def docker(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench while its Docker Engine runs; on 5.10 a second guest, with the engine of its release."""
    suite = bench.guest.machine.boot.kernel.suite
    if not bench.arm64 and suite is not Suite.BULLSEYE:
        pytest.skip("feature: `engines` and `debian` test Docker on newer kernels of x86-64")
    bench.once("an engine makes the same calls with more CPUs")
    if "KICKWATCH_LAB_LONG" not in os.environ:
        pytest.skip("feature: takes up to forty minutes, enabled by KICKWATCH_LAB_LONG=1")
    if bench.arm64:
        bench.keep("docker_version", bench.guest.shell(_START).output.strip())
        yield bench
        bench.guest.shell(f"systemctl stop docker.socket docker containerd; systemctl mask --quiet {_UNITS}")
        return
    with locked(cache() / "lock"):
        disk = _disk(suite, build_wheel(tmp_path_factory.mktemp("wheel")))
    with booted(replace(bench.guest.machine, boot=replace(bench.guest.machine.boot, disk=disk))) as guest:
        other = Bench(guest, bench.wanted, bench.module, bench.results)  # of a machine with the same name
        other.keep("docker_version", guest.shell(_FOREIGN).output.strip())
        yield other


def _disk(suite: Suite, wheel: Path) -> Path:
    """The laboratory's Debian with kickwatch, and beside it the one of `suite` with its Docker Engine."""
    bare, engine = bare_of(Architecture.AMD64, cache()), old_engines.tree(suite, cache(), "apparmor")

    def fill(tree: Path) -> None:
        install(tree, wheel, Architecture.AMD64)
        run(["cp", "--archive", "--reflink=auto", engine, tree / _TREE.lstrip("/")])

    return disk_of(f"docker-{suite}", bare, [bare.name, wheel.read_bytes().hex()], fill, free_mb=1024)


def test_healthy_containers_of_docker_are_quiet(docker: Bench) -> None:
    result = docker.trial("healthy_docker", *_TRIAL, containers=docker.containers)
    assert result["engine"].startswith("docker "), result["engine"]
    assert (result["containers"], result["failures"]) == (docker.containers, [])
    assert result["status"] == QUIET, (result["verdict"], result["reasons"])
    assert result["per_container"]["creation_path_broadcasts"] == 0
    programs = [cell for cell in result["bill"] if cell["origin"] == "bpf"]
    assert sum(cell["broadcasts"] for cell in programs) >= docker.containers  # also on x86 before 5.18
    assert {cell["reason"] for cell in programs} <= ({KICK} if docker.arm64 else _X86_PROGRAMS)


def test_a_broadcast_by_the_creating_task_convicts_through_docker(docker: Bench) -> None:
    fault_module.load(docker.guest, docker.module)
    fault_module.switch(docker.guest, kick=1)
    result = docker.trial("docker_kick", *_TRIAL, containers=6)
    fault_module.switch(docker.guest)
    assert result["status"] == BROADCASTING, (result["verdict"], result["reasons"])
    (cell,) = [cell for cell in result["bill"] if cell["reason"] == KICK and cell["origin"] != "bpf"]
    assert (cell["origin"], cell["path"]) == ("cgroup", "create")
    assert {"kickfault_css_online", "cgroup_mkdir"} <= {*cell["stack"]}
