"""The Engine protocol on every real engine: Docker, Podman, two releases of containerd by the CRI, runc and crun alone.

No probe is armed, since nothing is observed here. The containers have a separate cgroup parent and instance.
"""

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.native import binary
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.container_process import ContainerProcess
from kickwatch.workload.cri_engine import CriEngine
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.engine import ContainerSpec, Engine, EngineInfo
from kickwatch.workload.oci_engine import OciEngine
from kickwatch.workload.oci_store import BundleStore
from kickwatch.workload.oci_support import find_runtime
from kickwatch.workload.reaper import reap_containers, stop_slice
from newer_containerd import VERSION as NEWER_VERSION
from private_containerd import private_containerd
from private_podman import private_podman
from slowness import SLOWNESS

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel]

SOCKET = os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock")
CRI_SOCKET = os.environ.get("CRI_SOCKET", "")  # of a containerd that runs already
PARENT = "kickwatch-contract"
ROOT = Path("/run/kickwatch-contract")
LONG = ("--deadline-ms", "60000")
SHORT = ("--deadline-ms", "1")  # not released within a millisecond, it exits with status 3
VICTIM = """
import asyncio, os, sys
import msgspec
from pathlib import Path
from kickwatch.workload.cri_engine import CriEngine
from kickwatch.workload.docker_engine import DockerEngine
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.oci_engine import OciEngine

async def main(kind, path, specs):
    if kind == "docker":
        engine = DockerEngine(path, timeout_s=20, workers=1)
    elif kind == "cri":
        engine = CriEngine(path, timeout_s=20)
    else:
        engine = OciEngine(kind, timeout_s=20, root=Path(path))
    await engine.info()
    for spec in msgspec.json.decode(specs, type=list[ContainerSpec]):
        await engine.start(await engine.create(spec))
    print("alive", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class Kit:
    """One engine that is ready, and an instance name for its containers."""

    engine: Engine
    info: EngineInfo
    image: str
    arguments: tuple[str, str]  # with which the victim makes the same engine
    cgroups: Cgroups
    instance: str = field(default_factory=lambda: f"contract-{secrets.token_hex(4)}")

    @property
    def oci(self) -> bool:
        return self.info.name == "oci"

    @property
    def cri(self) -> bool:
        return self.info.name == "containerd"

    @property
    def parent(self) -> str:
        return f"{PARENT.replace('-', '')}.slice" if self.info.cgroup_driver == "systemd" else f"/{PARENT}"

    def spec(self, index: int = 0, command: tuple[str, ...] = LONG, instance: str = "") -> ContainerSpec:
        trial = secrets.token_hex(4)
        return ContainerSpec(
            name=f"kickwatch-{trial}-{index}", instance=instance or self.instance, trial=trial, image=self.image,
            command=command, network="none", cgroup_parent=self.parent, pids_limit=64,
        )  # fmt: skip

    async def at_barrier(self, container_id: str) -> ContainerProcess | None:
        barrier = Barrier(self.cgroups, self.cgroups.memory_root / self.parent.lstrip("/"))
        return await barrier.wait_for(container_id, self.engine.pid)

    async def started(self, command: tuple[str, ...] = LONG, instance: str = "") -> tuple[str, ContainerProcess | None]:
        container_id = await self.engine.create(self.spec(command=command, instance=instance))
        await self.engine.start(container_id)
        return container_id, await self.at_barrier(container_id)


def crun(directory: Path) -> str:
    """A crun that works here. Up to 1.8 it refuses a node with both v1 hierarchies and a v2 one, so hide the latter."""
    program = find_runtime("crun")
    if program is None:
        pytest.fail("no crun here: deploy/setup test-packages")
    if not Path("/sys/fs/cgroup/unified").is_dir():
        return str(program)
    wrapper = directory / "crun"
    hidden = f'umount /sys/fs/cgroup/unified && exec {program} "$@"'
    wrapper.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{hidden}' crun \"$@\"\n")
    wrapper.chmod(0o755)
    return str(wrapper)


@pytest.fixture(scope="module")
def podman() -> Iterator[Path]:
    """The socket of a private podman."""
    with private_podman() as socket:
        yield socket


@pytest.fixture(scope="module")
def containerd() -> Iterator[Path]:
    """The socket of a private containerd."""
    if CRI_SOCKET:
        yield Path(CRI_SOCKET)
        return
    with private_containerd() as engine:
        yield engine.socket


@pytest.fixture(scope="module")
def trixie() -> Iterator[Path]:
    """The socket of a private containerd of Debian 13."""
    with private_containerd(Path("/run/kickwatch-test-trixie"), newer=True) as engine:
        yield engine.socket


ENGINES = ["docker", "podman", "containerd", pytest.param("trixie", marks=pytest.mark.userland), "runc", "crun"]


@pytest.fixture(params=ENGINES)
async def kit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kit]:
    """Each engine. At the end no container of this instance and no cgroup may be left."""
    engine: Engine
    if request.param in {"docker", "podman"}:
        socket = SOCKET if request.param == "docker" else str(request.getfixturevalue("podman"))
        arguments = ("docker", socket)
        engine = DockerEngine(socket, timeout_s=20 * SLOWNESS, workers=4)
    elif request.param in {"containerd", "trixie"}:
        socket = str(request.getfixturevalue(request.param))
        arguments = ("cri", socket)
        engine = CriEngine(socket, timeout_s=20 * SLOWNESS)
    else:
        runtime = await asyncio.to_thread(crun, tmp_path) if request.param == "crun" else "runc"
        arguments = (runtime, str(ROOT))
        engine = OciEngine(arguments[0], timeout_s=20 * SLOWNESS, root=ROOT)
    info = await engine.info()
    image = await engine.prepare_image(await asyncio.to_thread(program))
    made = Kit(engine, info, image, arguments, await asyncio.to_thread(Cgroups.read))
    try:
        yield made
        assert await engine.own_containers(made.instance) == []
    finally:
        await reap_containers(engine, made.instance)
        await engine.remove_image(image)
        await engine.close()
        left = await asyncio.to_thread(no_parents, made)
    assert left == []
    assert not oci_files_exist()
    assert zombies() == []


def program() -> bytes:
    """The program in our containers."""
    return binary("workload").read_bytes()


def no_parents(kit: Kit) -> list[Path]:
    """Remove the cgroups of the containers; returns those that cannot be removed."""
    if kit.parent.endswith(".slice"):
        stop_slice(kit.parent)
    names = {PARENT, kit.parent.lstrip("/")}
    return [path for mount in kit.cgroups.mounts for name in names for path in remove_tree(mount / name)]


def oci_files_exist() -> bool:
    """Whether files of the oci engine are left."""
    return ROOT.exists()


def inside(pid: int) -> tuple[dict[str, Path], str, set[str]]:
    """A process's namespaces, its status, and what is at its root."""
    proc = Path(f"/proc/{pid}")
    namespaces = {kind: (proc / "ns" / kind).readlink() for kind in ("pid", "net", "ipc", "uts", "mnt", "cgroup")}
    return namespaces, (proc / "status").read_text(), {entry.name for entry in (proc / "root").iterdir()}


def zombies() -> list[str]:
    """Names of this process's children that have exited and are not reaped."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in text and "State:\tZ" in text:
            found.append(text.partition("\n")[0])
    return found


async def test_info_describes_the_engine(kit: Kit) -> None:
    names = {"docker": "podman" if "podman" in kit.arguments[1] else "docker", "cri": "containerd"}
    assert kit.info.name == names.get(kit.arguments[0], "oci")
    assert re.fullmatch(r"(runc|crun) \S+", kit.info.runtime)
    assert kit.info.version.startswith(NEWER_VERSION) or "trixie" not in kit.arguments[1]
    if kit.oci:
        assert kit.info.version.split()[0] == Path(kit.arguments[0]).name
        assert kit.info.version.split()[1][0].isdigit()


async def test_the_life_of_a_container_with_kernel_memory_charged(kit: Kit) -> None:
    container_id, process = await kit.started()
    assert process is not None
    assert await kit.engine.pid(container_id) == process.pid
    assert (await asyncio.to_thread(process.kmem_bytes) or 0) > 0
    assert await kit.engine.wait(container_id, 0.2) is None
    await asyncio.to_thread(process.release)
    assert await kit.engine.wait(container_id, 20) == 0
    assert await kit.engine.pid(container_id) == 0
    await kit.engine.remove(container_id)
    assert not process.memcg.exists()
    await kit.engine.remove(container_id)  # already removed: no error


async def test_the_container_is_confined(kit: Kit) -> None:
    container_id, process = await kit.started()
    assert process is not None
    (ours, _, _), (its, status, root) = inside(os.getpid()), inside(process.pid)
    shared = {kind for kind in ours if ours[kind] == its[kind]}
    # On cgroup v1 engines use the host's cgroup namespace. A CRI without CNI has no network namespace but the node's.
    assert shared <= (set() if kit.oci else {"cgroup", "net", "uts"} if kit.cri else {"cgroup"})
    assert "Seccomp:\t2" in status
    if kit.oci or kit.cri:
        assert "NoNewPrivs:\t1" in status
        assert "CapBnd:\t0000000000000000" in status
    if kit.oci:
        assert root == {"dev", "proc", "sys", "workload"}
    await kit.engine.remove(container_id)


async def test_the_exit_status_of_a_program_and_of_a_signal(kit: Kit) -> None:
    container_id, _ = await kit.started(SHORT)
    assert await kit.engine.wait(container_id, 20) == 3
    killed, process = await kit.started()
    assert process is not None
    os.kill(process.pid, 9)
    assert await kit.engine.wait(killed, 20) == 128 + 9
    for each in (container_id, killed):
        await kit.engine.remove(each)


async def test_several_containers_concurrently(kit: Kit) -> None:
    async def life() -> int | None:
        container_id, process = await kit.started()
        if process is not None:
            await asyncio.to_thread(process.release)
        status = await kit.engine.wait(container_id, 20)
        await kit.engine.remove(container_id)
        return status

    assert await asyncio.gather(*(life() for _ in range(6))) == [0] * 6


async def test_the_reaper_leaves_containers_of_another_instance(kit: Kit) -> None:
    created = await kit.engine.create(kit.spec())  # not started
    running, _ = await kit.started()
    other, process = await kit.started(instance="another-instance")
    assert set(await kit.engine.own_containers(kit.instance)) == {created, running}
    assert await reap_containers(kit.engine, kit.instance) == 2
    assert await kit.engine.own_containers(kit.instance) == []
    assert await kit.engine.own_containers("another-instance") == [other]
    assert process is not None
    assert await kit.engine.pid(other) == process.pid
    await kit.engine.remove(other)


@pytest.fixture
def foreign() -> Iterator[int]:
    """Another user's runc container with our labels and a name like ours, but another root. Yields its pid."""
    home = Path("/run/kickwatch-foreign")
    rootfs = home / "bundle/rootfs"
    for name in ("proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy2(binary("workload"), rootfs)
    subprocess.run(["runc", "spec", "--bundle", home / "bundle"], check=True)
    config = msgspec.json.decode((home / "bundle/config.json").read_bytes())
    config["process"] |= {"terminal": False, "args": ["/workload", *LONG]}
    config["annotations"] = {"kickwatch": "1", "kickwatch.instance": "contract"}
    config["linux"]["cgroupsPath"] = "/foreign-contract/kickwatch-00000000-0"
    (home / "bundle/config.json").write_bytes(msgspec.json.encode(config))
    runc, name = ["runc", "--root", str(home / "state")], "kickwatch-00000000-0"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = [*runc, "run", "--detach", "--bundle", str(home / "bundle"), "--pid-file", str(home / "pid"), name]
    subprocess.run(run, check=True, **quiet)  # type: ignore[call-overload]
    pid = int((home / "pid").read_text())
    yield pid
    subprocess.run([*runc, "delete", "--force", name], check=True)
    with suppress(ChildProcessError):  # it is our child if an engine under test made this process a subreaper
        os.waitpid(pid, 0)
    for mount in Cgroups.read().mounts:
        if (mount / "foreign-contract").is_dir():
            (mount / "foreign-contract").rmdir()
    shutil.rmtree(home)


async def test_containers_of_a_killed_process_are_reaped(kit: Kit, foreign: int) -> None:
    specs = [kit.spec(index) for index in range(2)]
    encoded = msgspec.json.encode(specs).decode()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, *kit.arguments, encoded, stdout=asyncio.subprocess.PIPE
    )
    assert victim.stdout is not None
    assert await victim.stdout.readline() == b"alive\n"
    victim.kill()
    await victim.wait()
    processes = [await kit.at_barrier(container_id) for container_id in await kit.engine.own_containers(kit.instance)]
    assert len(processes) == 2
    assert await reap_containers(kit.engine, kit.instance) == 2
    assert [process for process in processes if process is not None and process.memcg.exists()] == []
    assert "kw-barrier" in inside(foreign)[1]


async def test_a_container_that_cannot_start_is_named_and_leaves_nothing(kit: Kit) -> None:
    if kit.oci:
        spec = kit.spec()
        await asyncio.to_thread(lambda: next(ROOT.glob("images/*/program")).chmod(0o644))
    else:
        systemd = kit.info.cgroup_driver == "systemd"
        refused = "kickwatch--contract.slice" if systemd else "/../kickwatch-contract/memory.stat"
        spec = msgspec.structs.replace(kit.spec(), cgroup_parent=refused)
    if kit.cri:  # a pod is started by its creation
        with pytest.raises(EngineError, match=spec.name) as caught:
            await kit.engine.create(spec)
    else:
        container_id = await kit.engine.create(spec)
        with pytest.raises(EngineError, match=spec.name) as caught:
            await kit.engine.start(container_id)
        await kit.engine.remove(container_id)
    assert not isinstance(caught.value, EngineAnswerLostError)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.02])
async def test_a_cancelled_create_leaves_nothing(kit: Kit, after_s: float) -> None:
    creating = asyncio.create_task(kit.engine.create(kit.spec()))
    await asyncio.sleep(after_s)
    creating.cancel()
    (made,) = await asyncio.gather(creating, return_exceptions=True)
    if isinstance(made, str):  # it was created before the cancellation
        await kit.engine.remove(made)
    assert await kit.engine.own_containers(kit.instance) == []


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05])
async def test_a_cancelled_start_can_be_removed(kit: Kit, after_s: float) -> None:
    container_id = await kit.engine.create(kit.spec())
    starting = asyncio.create_task(kit.engine.start(container_id))
    await asyncio.sleep(after_s)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await kit.engine.remove(container_id)
    assert await kit.engine.own_containers(kit.instance) == []


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_noexec_runtime_directory_as_on_many_nodes(tmp_path: Path, runtime: str) -> None:
    home = Path("/run/kickwatch-noexec")
    wanted = await asyncio.to_thread(crun, tmp_path) if runtime == "crun" else runtime
    with noexec(home):
        engine = OciEngine(wanted, timeout_s=20, root=home / "oci")
        info, image = await engine.info(), await engine.prepare_image(await asyncio.to_thread(program))
        kit = Kit(engine, info, image, ("", ""), await asyncio.to_thread(Cgroups.read))
        container_id, process = await kit.started()
        assert process is not None
        await engine.remove(container_id)
        await engine.remove_image(image)
        await engine.close()
    assert await asyncio.to_thread(no_parents, kit) == []


@contextmanager
def noexec(directory: Path) -> Iterator[None]:
    """A file system mounted noexec."""
    directory.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev,mode=755,size=8m", "tmpfs", directory], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


@pytest.mark.parametrize("by", ["the engine", "the next trial with another engine"])
async def test_a_mount_that_a_killed_runc_left_in_its_state_is_detached(by: str) -> None:
    """runc before 1.2 mounts its binary there for a moment, and starts itself again from it."""
    engine = OciEngine("runc", timeout_s=20, root=ROOT)
    info, image = await engine.info(), await engine.prepare_image(await asyncio.to_thread(program))
    cgroups = await asyncio.to_thread(Cgroups.read)
    kit = Kit(engine, info, image, ("", ""), cgroups)
    container_id = await engine.create(kit.spec())
    left = ROOT / "state" / container_id / "runc.bt0eco"
    await asyncio.to_thread(mount_of_runc, left)
    try:
        if by == "the engine":
            await engine.remove(container_id)
        else:
            store = BundleStore(ROOT, Path("/proc"))
            assert await asyncio.to_thread(store.remove_leftovers, kit.instance, cgroups) == 1
        assert str(left) not in await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", left], check=False, capture_output=True)
    await engine.remove_image(image)
    await engine.close()
    assert not oci_files_exist()


def mount_of_runc(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.touch()
    subprocess.run(["mount", "--bind", shutil.which("runc") or "", file], check=True)


HANGS = {
    "before run": "sleep 1000",
    "after run": '/usr/sbin/runc "$@"; sleep 1000',
    "in every command": "exec sleep 1000",
}


@pytest.mark.parametrize("how", HANGS)
async def test_a_hanging_runtime_is_killed_and_what_it_made_is_removed(tmp_path: Path, how: str) -> None:
    wrapper = tmp_path / "runc"
    hang = (
        HANGS[how]
        if how == "in every command"
        else f'case "$*" in *" run "*) {HANGS[how]} ;; *) exec /usr/sbin/runc "$@" ;; esac'
    )
    wrapper.write_text(f"#!/bin/sh\n{hang}\n")
    wrapper.chmod(0o755)
    engine = OciEngine(str(wrapper), timeout_s=3, root=ROOT)
    since = time.monotonic()
    if how == "in every command":
        with pytest.raises(EngineAbsentError, match="no answer"):
            await engine.info()
    else:
        info, image = await engine.info(), await engine.prepare_image(await asyncio.to_thread(program))
        kit = Kit(engine, info, image, ("", ""), await asyncio.to_thread(Cgroups.read))
        container_id = await engine.create(kit.spec())
        with pytest.raises(EngineAnswerLostError, match=container_id):
            await engine.start(container_id)
        await engine.remove(container_id)
        assert await engine.own_containers(kit.instance) == []
        await engine.remove_image(kit.image)
        assert await asyncio.to_thread(no_parents, kit) == []
    assert time.monotonic() - since < 30
    await engine.close()
    assert not oci_files_exist()
    assert zombies() == []
