"""The barrier, with /proc and cgroups in a temporary directory; the released process is a real child."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EINVAL, EMFILE, ENOSYS
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kickwatch.errors import CgroupError, EngineError, NoHostProcessError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload import barrier as barrier_module
from kickwatch.workload.barrier import Barrier
from kickwatch.workload.container_process import BARRIER_COMM, ContainerProcess

ID = "fedcba9876543210" * 4
NO_PID = 2**22 + 1  # above every pid_max, so no such process can exist


def _write_at_once(path: Path, text: str) -> None:
    """As the kernel's files change: the code under test may be reading."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass
class Tree:
    """A node: the memory hierarchy and proc below one directory."""

    root: Path
    version: CgroupVersion = CgroupVersion.V1

    @property
    def cgroups(self) -> Cgroups:
        memory = self.root / "memory"
        return Cgroups(self.version, memory, "/", (memory,), self.root / "proc")

    @property
    def parent(self) -> Path:
        return self.root / "memory/kickwatch"

    def barrier(self, **changes: object) -> Barrier:
        return Barrier(self.cgroups, self.parent, **({"timeout_s": 0.5} | changes))

    def container(self, *pids: int, name: str = ID) -> Path:
        """Make the container's cgroup with these members."""
        directory = self.parent / name
        directory.mkdir(parents=True, exist_ok=True)
        _write_at_once(directory / "cgroup.procs", "".join(f"{pid}\n" for pid in pids))
        return directory

    def process(self, pid: int, comm: str = BARRIER_COMM, cgroup: str = f"/kickwatch/{ID}") -> None:
        """Make the files of a process in proc."""
        directory = self.root / "proc" / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        line = f"4:memory:{cgroup}\n" if self.version is CgroupVersion.V1 else f"0::{cgroup}\n"
        for name, text in (("cgroup", f"{line}1:name=systemd:/\n"), ("comm", f"{comm}\n")):
            _write_at_once(directory / name, text)


@pytest.fixture(params=list(CgroupVersion))
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """Both cgroup versions: /proc/PID/cgroup has a line for the memory controller in v1, one for everything in v2."""
    return Tree(tmp_path, request.param)


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that SIGUSR1 kills."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def never(_: str) -> NoReturn:
    pytest.fail("the engine was called")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what must not be given up, on a machine that may stand still for seconds."""
    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 30.0))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_program_at_its_barrier_is_found_without_a_call_to_the_engine(tree: Tree) -> None:
    tree.container(30, 31)
    tree.process(30, "sh")
    tree.process(31)
    process = await tree.barrier().wait_for(ID, never)
    assert process == ContainerProcess(31, tree.parent / ID, tree.cgroups)


async def test_a_systemd_scope_is_found(tree: Tree) -> None:
    scope = f"docker-{ID}.scope"
    tree.container(31, name=scope)
    tree.process(31, cgroup=f"/kickwatch/{scope}")
    process = await tree.barrier().wait_for(ID, never)
    assert process is not None
    assert process.memcg == tree.parent / scope


async def test_a_program_before_its_barrier_is_waited_for(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, "workload")
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.process(31)
    process = await waiting
    assert process is not None
    assert process.pid == 31


async def test_the_timeout_error_names_the_container(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, "workload")
    with pytest.raises(EngineError, match="container kickwatch-t-0 did not reach its barrier within 0 s"):
        await tree.barrier(timeout_s=0.05).wait_for(ID, never, "kickwatch-t-0")


async def gone(_: str) -> int:
    return 0


async def test_an_exited_container_is_not_found(tree: Tree) -> None:
    tree.container()
    assert await tree.barrier().wait_for(ID, gone) is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 0.05))
    monkeypatch.setattr(barrier_module, "_ASK_AGAIN_S", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_sandbox_in_the_programs_place_names_its_runtime_and_those_there_are(tree: Tree) -> None:
    tree.container(31, 32)
    tree.process(31, "runsc-sandbox")
    tree.process(32, "exe")
    barrier = tree.barrier(timeout_s=60, runtime="docker 20.10.24 with the runtime runsc", runtimes=("runc", "runsc"))
    with pytest.raises(NoHostProcessError) as caught:
        await barrier.wait_for(ID, never, "kickwatch-t-0")
    assert caught.value.what.startswith(
        "docker 20.10.24 with the runtime runsc runs the program of container kickwatch-t-0"
    )
    assert "engine.runtime" in caught.value.remedy
    assert caught.value.remedy.endswith("such as runc (runc, runsc)")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("cgroup", [True, False])
async def test_a_virtual_machine_outside_the_containers_cgroup_is_no_process_of_it(tree: Tree, cgroup: bool) -> None:
    async def hypervisor(_: str) -> int:
        return 31

    if cgroup:
        tree.container()
    tree.process(31, "qemu-system-x86", f"/kata_overhead/{ID}")
    with pytest.raises(NoHostProcessError):
        await tree.barrier(timeout_s=60).wait_for(ID, hypervisor)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("comm", ["runc:[2:INIT]", "runc:[1:CHILD]", "crun", "youki:[2:INIT]", "workload"])
async def test_a_runtime_that_is_slow_to_execute_the_program_is_no_sandbox(tree: Tree, comm: str) -> None:
    tree.container(31)
    tree.process(31, comm)
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, never))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    tree.process(31)
    process = await waiting
    assert process is not None


async def test_with_other_cgroup_names_the_engine_is_asked_once(tree: Tree) -> None:
    asked: list[str] = []

    async def pid(container_id: str) -> int:
        asked.append(container_id)
        return 31

    tree.process(31, "workload", f"/other/libpod-{ID}.scope")
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, pid))
    await asyncio.sleep(0.05)
    tree.process(31, cgroup=f"/other/libpod-{ID}.scope")
    process = await waiting
    assert process is not None
    assert process.memcg == tree.cgroups.memory_root / f"other/libpod-{ID}.scope"
    assert asked == [ID]


async def test_a_container_without_a_pid_is_not_found(tree: Tree) -> None:
    assert await tree.barrier().wait_for(ID, gone) is None


async def test_a_users_program_is_found_at_once_and_never_signalled(
    tree: Tree, child: "subprocess.Popen[bytes]"
) -> None:
    tree.container(child.pid)
    tree.process(child.pid, "nginx")
    process = await tree.barrier(own_program=False).wait_for(ID, never)
    assert process is not None
    process.release()
    assert child.poll() is None


async def test_a_users_program_that_has_exited_is_not_found(tree: Tree) -> None:
    tree.container(31)  # listed in cgroup.procs, but already gone from proc
    assert await tree.barrier(own_program=False).wait_for(ID, never) is None


async def test_an_exiting_process_is_not_attributed_to_the_root_cgroup(tmp_path: Path) -> None:
    """Exiting processes show `/` in v1 hierarchies; limits must not be written into the root."""
    tree = Tree(tmp_path)
    tree.container(31)
    tree.process(31, "nginx", "/")
    assert await tree.barrier(own_program=False).wait_for(ID, never) is None


async def test_a_reused_pid_is_refused(tree: Tree) -> None:
    async def stale(_: str) -> int:
        return 31

    tree.process(31, "sshd", "/system.slice/ssh.service")
    with pytest.raises(CgroupError, match=f"process 31 of container {ID[:12]} is in .*ssh.service"):
        await tree.barrier(own_program=False).wait_for(ID, stale)


@pytest.mark.parametrize("name", ["comm", "cgroup.procs"])
async def test_without_descriptors_a_container_is_neither_absent_nor_in_a_sandbox(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tree.container(31)
    tree.process(31)
    read = Path.read_text

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == name:
            raise OSError(EMFILE, "Too many open files")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(
        CgroupError, match=f"{name} cannot be read: RLIMIT_NOFILE leaves this process no descriptor.*LimitNOFILE"
    ):
        await tree.barrier(timeout_s=30).wait_for(ID, never)


async def test_an_invisible_memcg_is_an_error(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, cgroup=f"/../kickwatch/{ID}")
    with pytest.raises(CgroupError, match="run in the host's cgroup namespace"):
        await tree.barrier().wait_for(ID, never)


async def test_invisible_processes_are_an_error(tree: Tree) -> None:
    tree.container(0)
    with pytest.raises(CgroupError, match=r"kickwatch-t-0 .* not visible here: run in the host's pid namespace"):
        await tree.barrier().wait_for(ID, never, "kickwatch-t-0")


@pytest.mark.usefixtures("patient")
async def test_a_process_that_is_reaped_while_the_kernel_lists_it_fails_no_container(tree: Tree) -> None:
    """It is listed as 0, as another namespace's is. One container of 23 failed by that, in a guest of 6.12."""
    tree.container(0)
    waiting = asyncio.create_task(tree.barrier(timeout_s=30).wait_for(ID, never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.container(0, 31)
    tree.process(31)
    assert await waiting == ContainerProcess(31, tree.parent / ID, tree.cgroups)


@pytest.mark.usefixtures("patient")
async def test_a_user_program_that_is_just_being_reaped_has_exited(tree: Tree) -> None:
    tree.container(0)
    waiting = asyncio.create_task(tree.barrier(own_program=False, timeout_s=30).wait_for(ID, never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.container()
    assert await waiting is None


async def test_a_moment_of_a_cause_late_in_the_wait_is_not_the_last_word(
    tree: Tree, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow node the start itself takes longer than a hidden process is waited for."""
    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 1.0))
    hides(tree)
    tree.container(31)
    tree.process(31, "runc:[2:INIT]")
    waiting = asyncio.create_task(tree.barrier(timeout_s=30).wait_for(ID, never))
    await asyncio.sleep(1.2)
    tree.container(child.pid)  # without a file in this proc: hidden
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.process(child.pid)
    assert await waiting == ContainerProcess(child.pid, tree.parent / ID, tree.cgroups)


@pytest.mark.parametrize(
    ("lasted_s", "waited_s", "word"),
    [(2.9, 19.0, None), (3.0, 3.0, "HIDDEN"), (2.9, 20.0, "NOT_YET"), (3.0, 20.0, "HIDDEN")],
)
def test_the_last_word_is_a_cause_that_lasted(tree: Tree, lasted_s: float, waited_s: float, word: str | None) -> None:
    found = tree.barrier(timeout_s=20.0)._last_word(barrier_module._NotThere.HIDDEN, lasted_s, waited_s)
    assert (None if found is None else found.name) == word


async def test_one_look_at_a_cause_is_not_the_last_word_however_long_it_took(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that stood still for seconds, such as a virtual one."""
    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 1.0))
    tree.container(0)
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, never))
    await asyncio.sleep(0.05)
    time.sleep(1.2)  # noqa: ASYNC251 -- the loop stands still
    tree.container(31)
    tree.process(31)
    assert await waiting is not None


@pytest.mark.usefixtures("impatient")
async def test_a_nameless_process_does_not_hide_a_sandbox(tree: Tree) -> None:
    """A helper that ends at every look."""
    tree.container(31, 32)
    tree.process(31, "runsc-sandbox")
    with pytest.raises(NoHostProcessError):
        await tree.barrier(timeout_s=60).wait_for(ID, never)


async def test_an_exiting_process_of_a_users_program_does_not_hide_its_others(tree: Tree) -> None:
    tree.container(31, 32)
    tree.process(31, "sh", "/")  # it has left its memcg
    tree.process(32, "nginx")
    process = await tree.barrier(own_program=False).wait_for(ID, never)
    assert process is not None
    assert process.pid == 32


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01])
async def test_cancelling_leaves_no_descriptor(tree: Tree, after_s: float) -> None:
    tree.container(31)
    tree.process(31)
    await tree.barrier().wait_for(ID, never)  # now the threads and the event loop's descriptors exist
    before = open_files()
    for _ in range(20):
        waiting = asyncio.create_task(tree.barrier().wait_for(ID, never))
        await asyncio.sleep(after_s)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread(until_only, before)


def until_only(files: int) -> None:
    """A thread of a cancelled call goes on for a moment. A descriptor that leaks is never closed."""
    deadline = time.monotonic() + 20
    while (found := open_files()) != files:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def at_barrier(tree: Tree, pid: int) -> ContainerProcess:
    tree.process(pid)
    return ContainerProcess(pid, tree.parent / ID, tree.cgroups)


def test_release_signals_the_process(tree: Tree, child: "subprocess.Popen[bytes]") -> None:
    before = open_files()
    at_barrier(tree, child.pid).release()
    assert child.wait(5) == -signal.SIGUSR1
    assert open_files() == before


def test_releasing_an_exited_process_is_no_error(tree: Tree, child: "subprocess.Popen[bytes]") -> None:
    before = open_files()
    at_barrier(tree, NO_PID).release()
    process = at_barrier(tree, child.pid)
    child.kill()
    child.wait(5)
    process.release()
    assert open_files() == before


@pytest.mark.parametrize(("comm", "cgroup"), [("sshd", f"/kickwatch/{ID}"), (BARRIER_COMM, "/kickwatch/another")])
def test_release_never_signals_a_process_that_reuses_the_pid(
    tree: Tree, child: "subprocess.Popen[bytes]", comm: str, cgroup: str
) -> None:
    process = at_barrier(tree, child.pid)
    tree.process(child.pid, comm, cgroup)
    process.release()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)


def test_release_without_pidfds(tree: Tree, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 5.3."""

    def unknown(_: int) -> NoReturn:
        raise OSError(ENOSYS, os.strerror(ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", unknown)
    at_barrier(tree, child.pid).release()
    assert child.wait(5) == -signal.SIGUSR1


def test_a_process_whose_pid_is_only_a_sessions_now_has_ended(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """5.10 says EINVAL of it."""

    def invalid(_: int) -> NoReturn:
        raise OSError(EINVAL, os.strerror(EINVAL))

    monkeypatch.setattr(os, "pidfd_open", invalid)
    at_barrier(tree, 31).release()


def test_a_failed_release_is_an_error(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> NoReturn:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refused)
    with pytest.raises(CgroupError, match=r"process 31 in .* cannot be released \(Too many open files\)"):
        at_barrier(tree, 31).release()


def test_kernel_memory_at_the_barrier(tree: Tree) -> None:
    process = at_barrier(tree, 31)
    assert process.kmem_bytes() is None  # it exited, or the kernel does not report it
    memcg = tree.container(31)
    if tree.version is CgroupVersion.V1:
        (memcg / "memory.kmem.usage_in_bytes").write_text("8192\n")
    else:
        (memcg / "memory.stat").write_text("anon 1\nkernel 8192\nslab 4096\n")
    assert process.kmem_bytes() == 8192


def hides(tree: Tree) -> None:
    """Mount options that hide processes."""
    (tree.root / "proc/self").mkdir(parents=True)
    proc = tree.root / "proc"
    line = f"24 30 0:22 / {proc} rw - proc proc rw,hidepid=invisible,gid=26\n"
    (proc / "self/mountinfo").write_text(line)


async def test_processes_that_proc_hides_name_the_mount_option_before_the_timeout(
    tree: Tree, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither 20 s nor a guess at CPU or memory."""
    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 0.05))
    hides(tree)
    tree.container(child.pid)
    with pytest.raises(EngineError, match="hidepid=invisible,gid=26") as failure:
        await tree.barrier(timeout_s=20).wait_for(ID, never, "kickwatch-t-0")
    assert "kickwatch-t-0" in failure.value.what
    assert "SupplementaryGroups=26" in failure.value.remedy
    assert "CPU" not in str(failure.value)


async def test_a_process_that_proc_shows_once_it_is_at_its_barrier_is_found(
    tree: Tree, child: "subprocess.Popen[bytes]"
) -> None:
    hides(tree)
    tree.container(child.pid)
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.process(child.pid)
    process = await waiting
    assert process == ContainerProcess(child.pid, tree.parent / ID, tree.cgroups)


async def test_a_users_program_that_proc_hides_is_found_by_its_cgroup(
    tree: Tree, child: "subprocess.Popen[bytes]"
) -> None:
    hides(tree)
    tree.container(child.pid)
    process = await tree.barrier(own_program=False).wait_for(ID, never)
    assert process is not None
    assert process.memcg == tree.parent / ID


async def test_a_hidden_process_that_the_engine_names_has_not_exited(
    tree: Tree, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pid(_: str) -> int:
        return child.pid

    monkeypatch.setattr(barrier_module, "_TIMEOUTS_S", dict.fromkeys(barrier_module._TIMEOUTS_S, 0.05))
    hides(tree)
    with pytest.raises(EngineError, match="hidepid=invisible"):
        await tree.barrier(timeout_s=20, own_program=False).wait_for(ID, pid)


def test_the_zero_of_a_memcg_whose_program_has_ended_is_no_measurement(tree: Tree) -> None:
    process = at_barrier(tree, 31)
    memcg = tree.container(31)
    for name, text in (("memory.kmem.usage_in_bytes", "0\n"), ("memory.stat", "kernel 0\n")):
        (memcg / name).write_text(text)
    assert (process.kmem_bytes(), process.ended()) == (0, False)
    (memcg / "cgroup.procs").write_text("")
    assert (process.kmem_bytes(), process.ended()) == (None, True)


def test_the_zero_of_a_program_that_proc_hides_is_measured(tree: Tree, child: "subprocess.Popen[bytes]") -> None:
    """It has not ended, although /proc does not show it."""
    hides(tree)
    memcg = tree.container(child.pid)
    for name, text in (("memory.kmem.usage_in_bytes", "0\n"), ("memory.stat", "kernel 0\n")):
        (memcg / name).write_text(text)
    process = ContainerProcess(child.pid, memcg, tree.cgroups, own_program=False)
    assert (process.kmem_bytes(), process.ended()) == (0, False)


def test_a_process_whose_memcg_is_gone_has_ended(tree: Tree) -> None:
    process = at_barrier(tree, 31)
    shutil.rmtree(tree.container(31))
    assert process.ended()
