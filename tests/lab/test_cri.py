"""The fault module convicts through a CRI: containerd of the guest's suite, and each container in a pod."""

import gzip
import importlib.metadata
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fault_module
import old_engines
import pytest
from archive import Suite
from bench import KICK, Bench
from shell import cache, locked

import private_containerd

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

QUIET, BROADCASTING = 0, 3
HOME = Path("/run/cri")  # programs, images and pods are in memory: the disk is a snapshot on the host's
SOCKET = HOME / "containerd.sock"
CRI = ("--set", "engine.kind=cri", "--set", f"engine.socket={SOCKET}", "--set", "engine.runtime=")
_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")
# The extra `cri` with what it needs: the laboratory installs kickwatch without extras.
_PYTHON = ("grpclib", "h2", "hpack", "hyperframe", "multidict", "protobuf")
_SITE = "/opt/kickwatch/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def containerd(bench: Bench) -> Iterator[Bench]:
    """The bench with a containerd that runs, and the fault module with all faults off."""
    bench.once("a CRI makes the same calls with more CPUs")
    if bench.arm64:
        pytest.skip("feature: the programs are amd64's")
    with locked(cache() / "lock"):
        root = old_engines.tree(Suite.BOOKWORM, cache())
    guest = bench.guest
    for name in _PROGRAMS:
        guest.write(f"{HOME}/{name}.gz", gzip.compress((root / "usr/bin" / name).read_bytes(), 6))
    guest.write(f"{HOME}/python.tar.gz", _packages())
    settings = private_containerd.settings(socket=SOCKET, root=HOME / "root", state=HOME / "state")
    guest.write(f"{HOME}/config.toml", settings.encode())
    guest.shell(
        f"""set -e
        mount -o remount,exec /run
        cd {HOME} && gunzip -f *.gz && tar -C {_SITE} -xf python.tar && chmod 755 {" ".join(_PROGRAMS)}
        systemd-run --quiet --unit=cri --setenv=PATH={HOME}:/usr/sbin:/usr/bin {HOME}/containerd --config config.toml
        for second in $(seq 120); do ./ctr --address {SOCKET} version >/dev/null 2>&1 && exit; sleep 1; done
        journalctl --unit cri >&2; exit 1"""
    )
    if guest.shell(f"test -d /sys/module/{fault_module.NAME}", check=False).status:
        fault_module.load(guest, bench.module)
    fault_module.switch(guest)
    yield bench
    fault_module.switch(guest)
    guest.shell("systemctl stop cri")


def _packages() -> bytes:
    """The packages of this interpreter, which is of the guest's version, as a compressed archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in _PYTHON:
            for file in importlib.metadata.files(name) or []:
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    tar.add(str(file.locate()), arcname=str(file))
    return archive.getvalue()


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
