"""The fault module convicts through a CRI: containerd of the guest's suite, and each container in a pod."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fault_module
import old_engines
import pytest
from archive import Architecture
from bench import KICK, Bench
from guest import booted
from shell import cache
from userland import SUITE, bare_of, build_wheel, disk_of, install

import private_containerd
from cached_root import locked

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

QUIET, BROADCASTING = 0, 3
HOME = Path("/opt/cri")
SOCKET = Path("/run/cri.sock")
CRI = ("--set", "engine.kind=cri", "--set", f"engine.socket={SOCKET}", "--set", "engine.runtime=")
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")


@pytest.fixture(scope="module")
def containerd(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A second guest with the kernel of `bench`, a containerd that runs, and the fault module with all faults off."""
    machine = bench.guest.machine
    bench.on_request("a CRI takes a second guest")
    if bench.arm64 or bench.wanted != "v2" or bench.ipi_rung != "csd":
        pytest.skip("feature: needs another disk and boot, tested only on the amd64 machines of newer kernels")
    with locked(cache() / "lock"):
        disk = _disk(build_wheel(tmp_path_factory.mktemp("wheel")))
    with booted(replace(machine, boot=replace(machine.boot, disk=disk))) as guest:
        guest.shell(
            f"""set -e
            for file in hosts resolv.conf; do test -e /etc/$file || : >/etc/$file; done # each pod gets a copy
            export PATH={HOME}:$PATH
            systemd-run --quiet --unit=cri --setenv=PATH=$PATH $(command -v containerd) --config {HOME}/config.toml
            for second in $(seq 120); do {HOME}/ctr --address {SOCKET} version >/dev/null 2>&1 && exit; sleep 1; done
            journalctl --unit cri >&2; exit 1"""
        )
        fault_module.load(guest, bench.module)
        yield Bench(guest, bench.wanted, bench.module, bench.results)  # of a machine with the same name


def _disk(wheel: Path) -> Path:
    """The laboratory's Debian with kickwatch and its extra `cri`, and the containerd of the same suite."""
    bare = bare_of(Architecture.AMD64, cache())
    programs = old_engines.tree(SUITE, cache()) / "usr/bin"
    settings = private_containerd.settings(socket=SOCKET, root=Path("/var/lib/cri"), state=Path("/run/cri"))

    def fill(tree: Path) -> None:
        install(tree, wheel, Architecture.AMD64, extra="cri")
        home = tree / HOME.relative_to("/")
        home.mkdir(parents=True)
        for name in _PROGRAMS:
            shutil.copy(programs / name, home)
        (home / "config.toml").write_text(settings, encoding="utf-8")

    parts = [bare.name, wheel.read_bytes().hex(), settings, *_PROGRAMS]
    return disk_of("cri-guest", bare, parts, fill, free_mb=1024)


def test_healthy_pods_are_quiet(containerd: Bench) -> None:
    result = containerd.trial("cri_healthy", *CRI, containers=23)
    assert result["engine"].startswith("containerd 1.6.")
    assert (result["containers"], result["failures"]) == (23, [])
    assert result["status"] == QUIET, (result["verdict"], result["reasons"])


def test_a_broadcast_by_the_creating_task_convicts_through_a_cri(containerd: Bench) -> None:
    before = fault_module.counts(containerd.guest)["kicked"]
    fault_module.switch(containerd.guest, kick=1)
    result = containerd.trial("cri_kick", *CRI)
    fault_module.switch(containerd.guest)
    assert result["status"] == BROADCASTING, (result["verdict"], result["reasons"])
    assert fault_module.counts(containerd.guest)["kicked"] - before >= 2 * 12  # a pod has two memory cgroups at least
    (cell,) = [cell for cell in result["bill"] if cell["reason"] == KICK]
    assert (cell["origin"], cell["path"]) == ("cgroup", "create")
    assert {"kickfault_css_online", "cgroup_mkdir"} <= {*cell["stack"]}
    assert cell["broadcasts"] >= 2 * 12
    (alert,) = [line for line in result["log"] if line["event"] == "kickwatch.broadcast_detected"]
    assert (alert["reason"], alert["origin"]) == (KICK, "cgroup")
