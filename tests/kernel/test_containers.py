"""The probe of containers on this kernel: exact counts, the filter, members, and what happens without room."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpf_programs
from kickwatch.experiment.passive_count import ContainerCount
from kickwatch.observe.container_starts import SETTLE_NS
from kickwatch.observe.containers import OBJECT, PROGRAMS, ContainerObserver
from kickwatch.observe.observatory import Observatory
from others import hierarchies, make_and_remove
from shootdowns import shootdowns
from slowness import SLOWNESS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

ID = "feedc0de" * 7
SHOOTDOWNS = shootdowns(200)  # 0.15 s: on a busy node the flushing thread runs for a part of it


@pytest.fixture
def containers() -> Iterator[ContainerObserver]:
    observer = ContainerObserver.arm(("kickwatch",))
    yield observer
    observer.close()


def test_each_cgroup_with_a_container_s_name_is_one_container(containers: ContainerObserver) -> None:
    before = containers.drain()
    names = [f"{ID}{number:08x}" for number in range(23)]
    make_and_remove(*names, *(f"run-u{number}.service" for number in range(23)))
    counts = containers.drain()
    assert counts.lost == 0
    # Other tests may run containers meanwhile, but none with such a name.
    assert containers.ledger.started["other"] == 23
    assert counts.made - before.made >= len(hierarchies()) * 47
    make_and_remove(*names)  # started again
    containers.drain()
    assert containers.ledger.started["other"] == 46


def test_events_without_room_are_counted_as_lost() -> None:
    observer = ContainerObserver.arm(max_entries={"events": 8})
    try:
        make_and_remove(*(f"{ID}{number:08x}" for number in range(23)))
        counts = observer.drain()
        assert counts.lost > 0
        assert observer.ledger.started["other"] <= 23
        # There is room again, and what comes is counted.
        before = observer.ledger.started["other"]
        make_and_remove(f"{ID}ffffffff")
        assert observer.drain().lost >= counts.lost
        assert observer.ledger.started["other"] == before + 1
    finally:
        observer.close()


async def test_a_runtime_and_what_it_starts_are_members(observatory: Observatory, tmp_path: Path) -> None:
    """By the name of the program. The same program under another name is none."""
    await observatory.arm_passive(())
    assert observatory.members is not None, observatory.losses
    own = {}
    for name in ("runc", "stranger"):
        shutil.copy("/bin/sh", tmp_path / name)
        before = (await observatory.sample()).members
        run = [tmp_path / name, "-c", '"$1" -c "$2"; true', name, sys.executable, SHOOTDOWNS]
        await asyncio.to_thread(subprocess.run, run, check=True)
        after = (await observatory.sample()).members
        assert before is not None
        assert after is not None
        cells = observatory.members.cells(before, after)
        own[name] = sum(cell.requests for cell in cells if cell.reason == "flush_tlb_func")
    assert own["runc"] > 20
    assert own["stranger"] * 5 < own["runc"], own


def left_after(seconds: float) -> list[str]:
    """This probe's programs that are still loaded by then: the kernel frees them a grace period after the last use."""
    until = time.monotonic() + seconds * SLOWNESS
    while (left := [name for name in bpf_programs.ours().values() if name.startswith(OBJECT)]) != []:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return left


async def test_a_tracepoint_that_this_kernel_lacks_is_named_once_and_nothing_stays_loaded(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs of the other tracepoints are attached already, and are freed."""
    monkeypatch.setitem(PROGRAMS, "containers_mkdir", "cgroup_of_the_future")
    await observatory.arm_passive(())
    assert (observatory.containers, observatory.members) == (None, None)
    (sentence,) = [loss for loss in observatory.losses if "no tracepoint cgroup_of_the_future" in loss]
    assert "lost: containers that others start, what the containers of others ask for" in sentence
    assert left_after(5.0) == []
    count = ContainerCount(observatory)
    await count.drain()
    assert count.now().known is None
    assert "cgroup_of_the_future" in count.why_unknown(count.now())


def compiled(program: Path, text: str) -> Path:
    """A program from its text in C."""
    source = program.with_suffix(".c")
    source.write_text(text)
    subprocess.run(["gcc", "-o", program, source], check=True)
    return program


def test_a_runtime_s_own_names_count_once_for_each_run(containers: ContainerObserver, tmp_path: Path) -> None:
    """A program called `runc` that makes cgroups itself, in every hierarchy, with names that tell nothing."""
    runtime = compiled(
        tmp_path / "runc",
        "#include <sys/stat.h>\n#include <unistd.h>\n"
        "int main(int n, char **of) { for (int i = 1; i < n; i++) if (mkdir(of[i], 0755)) return 1;\n"
        "for (int i = n - 1; i; i--) if (rmdir(of[i])) return 2; return 0; }\n",
    )
    paths = [str(path) for root in hierarchies() for path in (root / "kw-others", root / "kw-others" / "web")]
    for _ in range(5):
        subprocess.run([runtime, *paths], check=True)
    containers.drain()
    time.sleep(SETTLE_NS / 1e9 + 0.1)
    containers.drain()
    assert containers.ledger.started["runc"] == 5


@pytest.mark.parametrize("copy", ["memfd", "3"])
def test_a_runtime_that_executes_a_copy_of_itself_by_a_descriptor_is_still_one(
    copy: str, containers: ContainerObserver, tmp_path: Path
) -> None:
    """As crun does. The kernel names it `3` until 6.14, which a file of that name does on every kernel."""
    runtime = compiled(
        tmp_path / "crun",
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdlib.h>\n#include <sys/mman.h>\n"
        "#include <sys/sendfile.h>\n#include <sys/stat.h>\n#include <unistd.h>\n"
        "int main(int n, char **of) {\n"
        'if (!getenv("COPIED")) { setenv("COPIED", "1", 1);\n'
        'int to = memfd_create("clone", MFD_CLOEXEC), self = open("/proc/self/exe", O_RDONLY);\n'
        "if (of[1][0] == '3') execve(\"3\", of, environ);\n"
        "else if (sendfile(to, self, 0, 1 << 24) > 0) fexecve(to, of, environ);\n"
        "return 3; }\n"
        "for (int i = 2; i < n; i++) if (mkdir(of[i], 0755)) return 1;\n"
        'if (!fork()) { execl("/bin/true", "true", (char *)0); _exit(4); }\n'
        "for (int i = n - 1; i > 1; i--) if (rmdir(of[i])) return 2; return 0; }\n",
    )
    shutil.copy(runtime, tmp_path / "3")
    paths = [str(root / "kw-others") for root in hierarchies()]
    before = containers.drain()
    for _ in range(3):
        subprocess.run([runtime, copy, *paths], check=True, cwd=tmp_path)
    containers.drain()
    time.sleep(SETTLE_NS / 1e9 + 0.1)
    after = containers.drain()
    assert containers.ledger.started["crun"] == 3
    assert after.inside == before.inside
    named = [name.rstrip(b"\0") for _, name in containers.probe.map("executed_as").items()]
    assert b"crun" not in named  # another runtime of the node, such as the engine's runc, may run now


@pytest.mark.parametrize("full", ["members", "executed_as"])
def test_a_runtime_without_room_leaves_the_count_incomplete_and_no_name_behind(full: str, tmp_path: Path) -> None:
    """A name that was left behind would make a runtime of the next task with that task_struct."""
    runtime = compiled(
        tmp_path / "youki",
        "#include <sys/wait.h>\n#include <unistd.h>\n"
        "int main(void) { for (int i = 0; i < 40; i++) if (!fork()) { usleep(300000); _exit(0); }\n"
        "while (wait(0) > 0); return 0; }\n",
    )
    observer = ContainerObserver.arm(max_entries={full: 8})
    try:
        subprocess.run([runtime], check=True)
        assert observer.drain().lost >= 20
        named = [name.rstrip(b"\0") for _, name in observer.probe.map("executed_as").items()]
        assert b"youki" not in named  # another runtime of the node, such as the engine's runc, may run now
    finally:
        observer.close()


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        (f"docker-{ID}00000000.scope", True),
        (f"{ID}00000000", True),
        ("run-r0a1b2c3d0a1b2c3d0a1b2c3d0a1b2c3d.scope", False),  # systemd-run --scope
        ("snap.editor-7f2c9f6e-8a0b-4c1d-9e2f-0a1b2c3d4e5f.scope", False),
    ],
)
async def test_only_tasks_of_a_container_s_cgroup_are_members(
    observatory: Observatory, name: str, counted: bool
) -> None:
    """Desktops and systemd name scopes by UUIDs, whose last part looks like the end of an id."""
    await observatory.arm_passive(())
    assert observatory.members is not None, observatory.losses
    cgroup = next(root for root in hierarchies() if not (root / "cpuset.cpus").exists()) / name
    cgroup.mkdir()
    try:
        before = (await observatory.sample()).members
        # The shell moves itself before it executes the program, so that nothing but its cgroup makes it a member.
        run = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', cgroup / "cgroup.procs", sys.executable, "-c", SHOOTDOWNS]
        await asyncio.to_thread(subprocess.run, run, check=True)
        after = (await observatory.sample()).members
    finally:
        cgroup.rmdir()
    assert before is not None
    assert after is not None
    cells = observatory.members.cells(before, after)
    sent = sum(cell.requests for cell in cells if cell.reason == "flush_tlb_func")
    assert (sent > 20) == counted, sent


def test_a_scope_with_a_short_path_is_passed_on(containers: ContainerObserver) -> None:
    """runc's systemd driver in the root slice makes /runc-web.scope."""
    for root in hierarchies():
        (root / "runc-web.scope").mkdir()
        (root / "runc-web.scope").rmdir()
    containers.drain()
    assert containers.ledger.started["runc"] >= 1


def test_cgroups_that_a_container_makes_inside_itself_are_counted_as_such(
    containers: ContainerObserver, tmp_path: Path
) -> None:
    """A member that is no runtime: what a runtime's program starts, such as a container's systemd."""
    shutil.copy("/bin/sh", tmp_path / "runc")
    service = hierarchies()[0] / f"others-{os.getpid()}.service"
    makes = 'for number in 1 2 3 4 5 6 7; do mkdir "$1" && rmdir "$1"; done'
    run = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"]
    before = containers.drain()
    subprocess.run([*run, "sh", "-c", makes, "sh", service], check=True)
    assert containers.drain().inside == before.inside
    subprocess.run([tmp_path / "runc", "-c", '"$@"; true', "runc", *run, "sh", "-c", makes, "sh", service], check=True)
    assert containers.drain().inside == before.inside + 7
