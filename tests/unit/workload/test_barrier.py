"""The barrier in a proc and a cgroup tree of the test's own; what is released there is a real child process."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EMFILE, ENOSYS
from pathlib import Path
from typing import NoReturn

import pytest

from kickwatch.errors import CgroupError, EngineError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.barrier import BARRIER_COMM, Barrier, ContainerProcess

ID = "fedcba9876543210" * 4
NOBODY = 2**22 + 1  # above every pid_max: no such process can exist


@dataclass
class Tree:
    """A node: memory hierarchy and proc below one directory."""

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
        """The container's cgroup, with these members."""
        directory = self.parent / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return directory

    def process(self, pid: int, comm: str = BARRIER_COMM, cgroup: str = f"/kickwatch/{ID}") -> None:
        """A process as proc shows it."""
        directory = self.root / "proc" / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        line = f"4:memory:{cgroup}\n" if self.version is CgroupVersion.V1 else f"0::{cgroup}\n"
        for name, text in (("cgroup", f"{line}1:name=systemd:/\n"), ("comm", f"{comm}\n")):
            fresh = directory / f"{name}.new"
            fresh.write_text(text)
            fresh.replace(directory / name)  # at once, as proc shows it: somebody may be reading


@pytest.fixture(params=list(CgroupVersion))
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """The proc file has a line for the memory controller in v1 and for everything in v2."""
    return Tree(tmp_path, request.param)


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that SIGUSR1 ends."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def never(_: str) -> NoReturn:
    pytest.fail("the engine was asked")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_program_at_its_barrier_is_found_without_asking_the_engine(tree: Tree) -> None:
    tree.container(30, 31)
    tree.process(30, "sh")
    tree.process(31)
    place = await tree.barrier().wait_for(ID, never)
    assert place == ContainerProcess(31, tree.parent / ID, tree.cgroups)


async def test_a_systemd_scope_is_found_too(tree: Tree) -> None:
    scope = f"docker-{ID}.scope"
    tree.container(31, name=scope)
    tree.process(31, cgroup=f"/kickwatch/{scope}")
    place = await tree.barrier().wait_for(ID, never)
    assert place is not None
    assert place.memcg == tree.parent / scope


async def test_it_is_waited_for(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, "workload")
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, never))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tree.process(31)
    place = await waiting
    assert place is not None
    assert place.pid == 31


async def test_one_that_never_comes_is_named_at_the_deadline(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, "workload")
    with pytest.raises(EngineError, match="container kickwatch-t-0 did not reach its barrier within 0 s"):
        await tree.barrier(timeout_s=0.05).wait_for(ID, never, "kickwatch-t-0")


async def test_one_that_ended_has_no_place(tree: Tree) -> None:
    tree.container()
    assert await tree.barrier().wait_for(ID, never) is None


async def test_an_engine_with_names_of_its_own_is_asked_once(tree: Tree) -> None:
    asked: list[str] = []

    async def pid(container_id: str) -> int:
        asked.append(container_id)
        return 31

    tree.process(31, "workload", f"/other/libpod-{ID}.scope")
    waiting = asyncio.create_task(tree.barrier(timeout_s=5).wait_for(ID, pid))
    await asyncio.sleep(0.05)
    tree.process(31, cgroup=f"/other/libpod-{ID}.scope")
    place = await waiting
    assert place is not None
    assert place.memcg == tree.cgroups.memory_root / f"other/libpod-{ID}.scope"
    assert asked == [ID]


async def test_one_that_the_engine_says_does_not_run_has_no_place(tree: Tree) -> None:
    async def gone(_: str) -> int:
        return 0

    assert await tree.barrier().wait_for(ID, gone) is None


async def test_a_users_program_is_taken_as_it_is_and_never_signalled(
    tree: Tree, child: "subprocess.Popen[bytes]"
) -> None:
    tree.container(child.pid)
    tree.process(child.pid, "nginx")
    place = await tree.barrier(own_program=False).wait_for(ID, never)
    assert place is not None
    place.release()
    assert child.poll() is None


async def test_a_users_program_that_ended_meanwhile_has_no_place(tree: Tree) -> None:
    tree.container(31)  # listed a moment ago, and gone from proc
    assert await tree.barrier(own_program=False).wait_for(ID, never) is None


async def test_an_exiting_process_is_not_taken_for_one_of_the_root(tmp_path: Path) -> None:
    """Exiting processes show `/` in v1 hierarchies: the knobs would be written into the root."""
    tree = Tree(tmp_path)
    tree.container(31)
    tree.process(31, "nginx", "/")
    assert await tree.barrier(own_program=False).wait_for(ID, never) is None


async def test_a_number_that_is_another_processs_by_now_is_refused(tree: Tree) -> None:
    async def stale(_: str) -> int:
        return 31

    tree.process(31, "sshd", "/system.slice/ssh.service")
    with pytest.raises(CgroupError, match=f"process 31 of container {ID[:12]} is in .*ssh.service"):
        await tree.barrier(own_program=False).wait_for(ID, stale)


async def test_a_memcg_out_of_sight_is_said(tree: Tree) -> None:
    tree.container(31)
    tree.process(31, cgroup=f"/../kickwatch/{ID}")
    with pytest.raises(CgroupError, match="run in the host's cgroup namespace"):
        await tree.barrier().wait_for(ID, never)


async def test_processes_out_of_sight_are_said(tree: Tree) -> None:
    tree.container(0)
    with pytest.raises(CgroupError, match="run in the host's pid namespace"):
        await tree.barrier().wait_for(ID, never)


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.01])
async def test_cancelling_leaves_no_descriptor(tree: Tree, after_s: float) -> None:
    tree.container(31)
    tree.process(31)
    await tree.barrier().wait_for(ID, never)  # threads and the loop's own descriptors are there now
    before = open_files()
    for _ in range(20):
        waiting = asyncio.create_task(tree.barrier().wait_for(ID, never))
        await asyncio.sleep(after_s)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert open_files() == before


def placed(tree: Tree, pid: int) -> ContainerProcess:
    tree.process(pid)
    return ContainerProcess(pid, tree.parent / ID, tree.cgroups)


def test_release_signals_the_process(tree: Tree, child: "subprocess.Popen[bytes]") -> None:
    before = open_files()
    placed(tree, child.pid).release()
    assert child.wait(5) == -signal.SIGUSR1
    assert open_files() == before


def test_release_of_one_that_has_ended_is_no_error(tree: Tree, child: "subprocess.Popen[bytes]") -> None:
    before = open_files()
    placed(tree, NOBODY).release()
    place = placed(tree, child.pid)
    child.kill()
    child.wait(5)
    place.release()
    assert open_files() == before


@pytest.mark.parametrize(("comm", "cgroup"), [("sshd", f"/kickwatch/{ID}"), (BARRIER_COMM, "/kickwatch/another")])
def test_release_never_hits_a_later_process_of_that_number(
    tree: Tree, child: "subprocess.Popen[bytes]", comm: str, cgroup: str
) -> None:
    place = placed(tree, child.pid)
    tree.process(child.pid, comm, cgroup)
    place.release()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)


def test_release_without_pidfds(tree: Tree, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 5.3."""

    def unknown(_: int) -> NoReturn:
        raise OSError(ENOSYS, os.strerror(ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", unknown)
    placed(tree, child.pid).release()
    assert child.wait(5) == -signal.SIGUSR1


def test_release_that_is_refused_is_said(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> NoReturn:
        raise OSError(EMFILE, os.strerror(EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refused)
    with pytest.raises(CgroupError, match=r"process 31 in .* cannot be released \(Too many open files\)"):
        placed(tree, 31).release()


def test_kernel_memory_at_the_barrier(tree: Tree) -> None:
    place = placed(tree, 31)
    assert place.kmem_bytes() is None  # ended meanwhile, or a kernel that does not say
    memcg = tree.container(31)
    if tree.version is CgroupVersion.V1:
        (memcg / "memory.kmem.usage_in_bytes").write_text("8192\n")
    else:
        (memcg / "memory.stat").write_text("anon 1\nkernel 8192\nslab 4096\n")
    assert place.kmem_bytes() == 8192
