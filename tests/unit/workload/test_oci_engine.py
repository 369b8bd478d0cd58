"""The oci engine with a shell script as runtime, which starts processes, hangs or fails as a test requires."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kickwatch.workload.oci_support as module
from kickwatch.errors import EngineAbsentError, EngineAnswerLostError, EngineError
from kickwatch.node.privileges import FOR_CONTAINERS, KEPT, SERVICE, LinuxCapability
from kickwatch.node.roots import HostRoots
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.image import image_reference
from kickwatch.workload.oci_engine import OciEngine
from kickwatch.workload.oci_processes import reap_if_exited
from kickwatch.workload.oci_runtime import last_error
from kickwatch.workload.oci_support import find_runtime, has_seccomp, missing_privilege, parse_version

SCRIPT = """#!/bin/sh
echo "$*" >> {here}/calls
log=; pid=
for word; do
    case $last in --log) log=$word ;; --pid-file) pid=$word ;; esac
    last=$word
done
case " $* " in
*" --version "*) {version} ;;
*" run "*) {run} ;;
*" delete "*) {delete} ;;
esac
"""
SLEEPER = "sh -c 'sleep {seconds}; exit {status}' & echo $! > $pid"
ALL_CAPABILITIES, NONE = "000001ffffffffff", "0000000000000000"


@dataclass
class Node:
    """A directory with a runtime, a proc tree and one cgroup hierarchy."""

    here: Path

    def runtime(self, *, version: str = "echo runc version 9.9", run: str = "", delete: str = "true") -> None:
        run = run or SLEEPER.format(seconds=60, status=0)
        path = self.here / "runc"
        path.write_text(SCRIPT.format(here=self.here, version=version, run=run, delete=delete))
        path.chmod(0o755)

    def proc(self, capabilities: str = ALL_CAPABILITIES) -> Path:
        proc = self.here / "proc"
        for name in ("self/ns", "thread-self", "sys/kernel/seccomp"):
            (proc / name).mkdir(parents=True, exist_ok=True)
        (proc / "thread-self/status").write_text(f"CapPrm:\t{capabilities}\n")
        (self.here / "memory").mkdir(exist_ok=True)
        (proc / "self/mountinfo").write_text(f"30 20 0:26 / {self.here}/memory rw - cgroup cgroup rw,memory\n")
        return proc

    def engine(self, timeout_s: float = 10) -> OciEngine:
        return OciEngine(
            str(self.here / "runc"), timeout_s=timeout_s, root=self.here / "oci", host=HostRoots(proc=self.proc())
        )

    def calls(self) -> str:
        return (self.here / "calls").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.runtime()
    return made


@pytest.fixture
async def engine(node: Node) -> AsyncIterator[OciEngine]:
    opened = node.engine()
    await opened.info()
    assert await opened.prepare_image(b"program") == IMAGE
    yield opened
    await opened.close()


IMAGE = image_reference(b"program")


def spec(index: int = 0, *, instance: str = "mine", network: str = "none") -> ContainerSpec:
    return ContainerSpec(
        name=f"kickwatch-12345678-{index}", instance=instance, trial="12345678", image=IMAGE, command=(),
        network=network, cgroup_parent="/kickwatch",
    )  # fmt: skip


def name_of(pid: int) -> str:
    """The name of a process; empty if there is none."""
    comm = Path(f"/proc/{pid}/comm")
    return comm.read_text().strip() if comm.exists() else ""


async def start_one(engine: OciEngine) -> str:
    container_id = await engine.create(spec())
    await engine.start(container_id)
    return container_id


async def test_info_describes_the_runtime(node: Node, engine: OciEngine) -> None:
    info = await engine.info()
    assert str(info) == "oci runc 9.9"
    assert (info.cgroup_driver, info.cgroup_parent) == ("cgroupfs", "/kickwatch")
    assert info.endpoint == str(node.here / "runc")
    assert await engine.count_running() is None


async def test_the_cgroup_parent_is_below_a_delegated_unit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = node.here / "memory/system.slice/kickwatch.service"
    monkeypatch.setattr(module, "own_base", lambda _: unit)
    engine = node.engine()
    assert (await engine.info()).cgroup_parent == "/system.slice/kickwatch.service/kickwatch"
    await engine.close()


async def test_a_missing_runtime_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    engine = OciEngine(str(tmp_path / "none"), timeout_s=1, host=HostRoots(proc=Node(tmp_path).proc()))
    with pytest.raises(EngineAbsentError, match=r"none on PATH.*install runc or crun.*engine\.runtime"):
        await engine.info()


async def test_a_missing_capability_is_an_error(node: Node) -> None:
    engine = node.engine()
    node.proc(NONE)
    with pytest.raises(EngineAbsentError, match="CAP_SYS_ADMIN"):
        await engine.info()


@pytest.mark.parametrize(
    ("granted", "lacking"),
    [
        ({*SERVICE, LinuxCapability.SYS_ADMIN}, "CAP_DAC_OVERRIDE CAP_SETGID CAP_SETPCAP CAP_NET_ADMIN"),
        ({*KEPT, LinuxCapability.SYS_ADMIN}, "CAP_SETGID CAP_SETPCAP CAP_NET_ADMIN"),
        ({*SERVICE, *FOR_CONTAINERS}, ""),
        (set(LinuxCapability), ""),
    ],
    ids=["sys-admin.conf", "root that keeps it for its maps", "oci.conf", "root"],
)
def test_the_drop_in_for_probes_lets_no_service_drive_a_runtime(granted: set[LinuxCapability], lacking: str) -> None:
    """`auto` drove runc in that sandbox, where every container failed, and kept CAP_SYS_ADMIN for it."""
    missing = missing_privilege(sum(1 << one for one in granted))
    assert (missing is not None) == bool(lacking)
    if missing is not None:
        assert missing.what == f"without {lacking} kickwatch cannot make containers itself"
        assert "the drop-in oci.conf" in missing.remedy


@pytest.mark.parametrize(("program", "reason"), [("exec sleep 60", "no answer"), ("", "")])
async def test_a_runtime_that_hangs_or_prints_no_version(node: Node, program: str, reason: str) -> None:
    node.runtime(version=program or "true")
    engine = node.engine(timeout_s=0.3 if reason else 10)
    if reason:
        with pytest.raises(EngineAbsentError, match=reason):
            await engine.info()
    else:
        assert (await engine.info()).version == "runc unknown"
        await engine.close()


async def test_the_life_of_a_container(node: Node, engine: OciEngine) -> None:
    go = node.here / "go"
    node.runtime(run=f"sh -c 'until [ -e {go} ]; do sleep 0.05; done; exit 7' & echo $! > $pid")
    container_id = await start_one(engine)
    pid = await engine.pid(container_id)
    assert name_of(pid)
    assert await engine.wait(container_id, 0.01) is None
    go.touch()
    assert await engine.wait(container_id, 10) == 7
    assert await engine.pid(container_id) == 0
    assert await engine.wait(container_id, 10) == 7
    await engine.remove(container_id)
    await engine.remove(container_id)
    assert " delete " not in node.calls()  # its exit was observed
    assert list((node.here / "oci/bundles").iterdir()) == []


async def test_a_runtime_does_not_get_notify_socket(
    node: Node, engine: OciEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    node.runtime(run=f"env > {node.here}/environment; {SLEEPER.format(seconds=0, status=0)}")
    container_id = await start_one(engine)
    environment = (node.here / "environment").read_text()
    assert "PATH=" in environment
    assert "NOTIFY_SOCKET" not in environment
    await engine.remove(container_id)


async def test_removing_a_running_container_kills_it(engine: OciEngine) -> None:
    container_id = await start_one(engine)
    pid = await engine.pid(container_id)
    await engine.remove(container_id)
    assert name_of(pid) == ""


async def test_a_cancelled_wait_does_not_lose_the_exit_status(engine: OciEngine) -> None:
    container_id = await start_one(engine)
    waiting = asyncio.create_task(engine.wait(container_id, 60))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    os.kill(await engine.pid(container_id), 9)
    assert await engine.wait(container_id, 10) == 128 + 9
    await engine.remove(container_id)


async def test_a_failed_start_raises_the_runtimes_message_in_one_line(node: Node, engine: OciEngine) -> None:
    node.runtime(run="""printf '{"level":"error","msg":"exec\\\\nformat error"}\\n' > $log; exit 1""")
    container_id = await engine.create(spec())
    with pytest.raises(EngineError, match="could not start the container kickwatch-12345678-0: exec format error"):
        await engine.start(container_id)
    await engine.remove(container_id)
    assert await engine.own_containers("mine") == []


@pytest.mark.parametrize(("run", "reason"), [("true", "No such file"), ("echo x > $pid", "wrote no process id")])
async def test_a_runtime_that_writes_no_pid_is_an_error(node: Node, engine: OciEngine, run: str, reason: str) -> None:
    node.runtime(run=run)
    container_id = await engine.create(spec())
    with pytest.raises(EngineError, match=f"could not start the container {container_id}: .*{reason}"):
        await engine.start(container_id)
    await engine.remove(container_id)


async def test_a_start_that_times_out_is_killed_with_its_children(node: Node, engine: OciEngine) -> None:
    node.runtime(run=f"{SLEEPER.format(seconds=60, status=0)}; cp $pid {node.here}/orphan; sleep 60")
    impatient = node.engine(timeout_s=4)
    await impatient.info()
    container_id = await impatient.create(spec())
    since = time.monotonic()
    with pytest.raises(EngineAnswerLostError, match=r"no answer within 4 s"):
        await impatient.start(container_id)
    assert time.monotonic() - since < 30
    assert name_of(int((node.here / "orphan").read_text())) == ""
    await impatient.remove(container_id)
    assert " delete --force " in node.calls()
    await impatient.close()


async def test_a_runtime_that_hangs_in_delete_leaves_nothing(node: Node) -> None:
    node.runtime(delete="sleep 60")
    engine = node.engine(timeout_s=3)
    await engine.info()
    await engine.prepare_image(b"program")
    container_id = await engine.create(spec())
    state = node.here / "oci/state" / container_id
    state.mkdir()
    await engine.remove(container_id)
    assert not state.exists()
    assert await engine.own_containers("mine") == []
    await engine.close()


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.05])
async def test_a_cancelled_start_leaves_no_process(node: Node, engine: OciEngine, after_s: float) -> None:
    node.runtime(run=f"{SLEEPER.format(seconds=60, status=0)}; echo $$ $! > {node.here}/pids; sleep 60")
    container_id = await engine.create(spec())
    starting = asyncio.create_task(engine.start(container_id))
    await asyncio.sleep(after_s)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    file = node.here / "pids"
    pids = file.read_text().split() if file.exists() else []
    assert [pid for pid in pids if name_of(int(pid))] == []
    await engine.remove(container_id)


async def test_a_cancelled_create_leaves_nothing(node: Node, engine: OciEngine) -> None:
    creating = asyncio.create_task(engine.create(spec()))
    await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert list((node.here / "oci/bundles").iterdir()) == []


async def test_an_existing_container_is_not_replaced(engine: OciEngine) -> None:
    await engine.create(spec())
    with pytest.raises(EngineError, match="kickwatch-12345678-0"):
        await engine.create(spec(instance="another"))
    assert await engine.own_containers("mine") == ["kickwatch-12345678-0"]
    await engine.remove("kickwatch-12345678-0")


async def test_only_complete_bundles_of_this_instance_are_ours(node: Node, engine: OciEngine) -> None:
    for index, instance in enumerate(("mine", "another", "mine")):
        await engine.create(spec(index, instance=instance))
    for name, content in (("odd", "[]"), ("empty", ""), ("foreign", '{"linux": {}}')):
        (node.here / "oci/bundles" / name).mkdir()
        (node.here / "oci/bundles" / name / "config.json").write_text(content)
    assert await engine.own_containers("mine") == ["kickwatch-12345678-0", "kickwatch-12345678-2"]


async def test_partial_bundles_are_ignored_and_removed(node: Node, engine: OciEngine) -> None:
    partial = node.here / "oci/bundles/.kickwatch-12345678-0"
    partial.mkdir()
    assert await engine.own_containers("mine") == []
    await engine.prepare_image(b"program")
    assert not partial.exists()


async def test_a_bridge_network_is_refused_with_its_key(engine: OciEngine) -> None:
    with pytest.raises(EngineError, match=r"workload\.network"):
        await engine.create(spec(network="bridge"))


async def test_a_users_image_is_refused(engine: OciEngine) -> None:
    with pytest.raises(EngineError, match=r"debian:12.*workload\.image"):
        await engine.require_image("debian:12")
    await engine.require_image(IMAGE)


async def test_the_image_is_written_once_and_removed(node: Node, engine: OciEngine) -> None:
    program = node.here / "oci/images" / IMAGE.replace("/", "_") / "program"
    before = program.stat()
    await engine.prepare_image(b"program")
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    program.write_bytes(b"something else")
    await engine.prepare_image(b"program")
    assert program.read_bytes() == b"program"
    assert program.stat().st_mode & 0o777 == 0o755
    await engine.remove_image(IMAGE)
    await engine.remove_image(IMAGE)
    assert not (node.here / "oci").exists()


async def test_waiting_for_a_container_that_was_not_started_is_an_error(engine: OciEngine) -> None:
    with pytest.raises(EngineError, match="was not started here"):
        await engine.wait("kickwatch-12345678-9", 1)
    assert await engine.pid("kickwatch-12345678-9") == 0


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("runc version 1.1.5+ds1\ncommit: x\n", ("runc", "1.1.5+ds1")),
        ("crun version 1.8.1\n", ("crun", "1.8.1")),
        ("", ("wrapper", "unknown")),
    ],
)
def test_versions(output: str, version: tuple[str, str]) -> None:
    assert parse_version(output, "wrapper") == version


def test_seccomp_needs_kernel_and_runtime(tmp_path: Path) -> None:
    assert not has_seccomp("libseccomp: 2.5.4", tmp_path)
    (tmp_path / "sys/kernel/seccomp").mkdir(parents=True)
    assert has_seccomp("runc version 1\nlibseccomp: 2.5.4", tmp_path)
    assert has_seccomp("crun version 1\n+SYSTEMD +SECCOMP", tmp_path)
    assert not has_seccomp("crun version 1\n+SYSTEMD", tmp_path)


def test_the_last_error_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_error(log, 3) == "exit status 3"
    log.write_text('{"level":"warning","msg":"odd"}\nnot json\n{"level":"error","msg":"first"}\n[]\n')
    assert last_error(log, 3) == "first"


def test_a_runtime_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("crun", "kw-none"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_runtime("kw-none") == tmp_path / "kw-none"
    assert find_runtime(str(tmp_path / "crun")) == tmp_path / "crun"
    assert find_runtime("kw-missing") is None


def test_a_process_that_is_not_our_child_has_no_status() -> None:
    with pytest.raises(ChildProcessError):
        reap_if_exited(1)
