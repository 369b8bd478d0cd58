"""Causes of losses, provoked on this kernel: each is named, and its remedy, applied here, removes the loss."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.node.causes import CauseKind
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.refused import RefusedError
from kickwatch.workload.container_process import BARRIER_COMM
from lost_script import LOST
from namespaces import GROUP, Step, hiding, inside, without_capabilities

pytestmark = [pytest.mark.long, pytest.mark.kernel, pytest.mark.timeout(60)]

NOBODY = 65534
TARGET = f"open('/proc/self/comm', 'w').write('{BARRIER_COMM}'); print(flush=True); import time; time.sleep(60)"
CONTAINER = "c0ffee" * 10 + "c0de"

# As a reload to passive mode, or a start in it.
ARMS_PASSIVE = """
import asyncio, json, sys
from kickwatch.node.privileges import give_up
from kickwatch.observe.losses import Lost
from kickwatch.observe.observatory import Observatory

observatory = asyncio.run(Observatory.open())
if sys.argv[1] == "later":
    give_up(lambda: True)
asyncio.run(observatory.arm_passive(()))
print(json.dumps([[loss.what, loss.remedy] for loss in observatory.lost(Lost.CONTAINERS, Lost.MEMBERS)]))
observatory.close()
"""
# Twice: with what `LIMIT` takes away, and with it given back.
ARMS_TWICE = f"import os, resource, sys\nfrom pathlib import Path\n{LOST}"
DESCRIPTORS = """
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
few = lost()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(json.dumps([few, lost()]))
"""
MEMORY = """
group, limit, usage, whole = Path(sys.argv[1]), *sys.argv[2:]
(group / "cgroup.procs").write_text(str(os.getpid()))
(group / limit).write_text(str(int((group / usage).read_text()) + (4 << 20)))
few = lost()
(group / limit).write_text(whole)
print(json.dumps([few, lost()]))
"""
MEMORY_FILES = {
    CgroupVersion.V1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "-1"),
    CgroupVersion.V2: ("memory.max", "memory.current", "max"),
}
WAITS_FOR_A_CONTAINER = """
import asyncio, sys
from pathlib import Path
from kickwatch.errors import EngineError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.barrier import Barrier

async def inspect_pid(_):
    return 0

try:
    found = asyncio.run(Barrier(Cgroups.read(), Path(sys.argv[1])).wait_for(sys.argv[2], inspect_pid))
    print("found", found.pid)
except EngineError as error:
    print(f"{error.what}|{error.remedy}")
"""


@pytest.fixture
def probe() -> Iterator[BpfObject]:
    """A loaded object that is attached to nothing."""
    loaded = BpfObject("containers")
    yield loaded
    loaded.close()


def armed_twice(script: str, *arguments: str | Path) -> tuple[list[list[str]], list[list[str]]]:
    """(what is lost, and its remedies, under the limit of the script; the same without it)."""
    command = [sys.executable, "-c", ARMS_TWICE + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    few, all_of_it = json.loads(done.stdout)
    return few, all_of_it


@pytest.mark.provokes(CauseKind.NO_DESCRIPTOR)
def test_a_limit_of_descriptors_is_named() -> None:
    """It leaves none to look for the cause with, either."""
    few, all_of_it = armed_twice(DESCRIPTORS)
    assert {what for what, _ in few} == {"RLIMIT_NOFILE leaves this process no descriptor"}
    assert "LimitNOFILE=" in few[0][1]
    assert not [what for what, _ in all_of_it if "RLIMIT" in what]


@pytest.mark.provokes(CauseKind.NO_MEMORY)
def test_a_limit_of_memory_is_named() -> None:
    """Since 5.11 it counts what BPF maps and programs take ("bpf: Memcg-based memory accounting for bpf progs")."""
    cgroups = Cgroups.read()
    group = cgroups.memory_root / "kickwatch-test-memory"
    group.mkdir()
    try:
        few, all_of_it = armed_twice(MEMORY, group, *MEMORY_FILES[cgroups.version])
    finally:
        group.rmdir()
    assert any("no memory for BPF" in what and "MemoryMax=" in remedy for what, remedy in few)
    assert not [what for what, _ in all_of_it if "memory" in what]


@pytest.mark.provokes(CauseKind.NO_TRACEPOINT)
def test_a_tracepoint_that_this_kernel_lacks_is_named(probe: BpfObject) -> None:
    with pytest.raises(RefusedError) as refused:
        probe.attach_raw_tracepoint("containers_attach", "kickwatch_has_none")
    assert refused.value.cause.what == "this kernel has no tracepoint kickwatch_has_none"
    probe.attach_raw_tracepoint("containers_attach", "cgroup_attach_task")


@pytest.mark.provokes(CauseKind.OTHER_ARGUMENTS)
def test_a_tracepoint_with_fewer_arguments_is_named(probe: BpfObject) -> None:
    """sched_process_free has one argument, and the program reads the third."""
    with pytest.raises(RefusedError) as refused:
        probe.attach_raw_tracepoint("containers_attach", "sched_process_free")
    what = "the tracepoint sched_process_free of this kernel has fewer arguments than the probe reads"
    assert refused.value.cause.what == what


@pytest.mark.provokes(CauseKind.GIVEN_UP)
def test_capabilities_that_were_given_up_are_named_and_a_restart_brings_the_probes_back() -> None:
    lost, restarted = (
        json.loads(subprocess.check_output([sys.executable, "-c", ARMS_PASSIVE, when], text=True))
        for when in ("later", "first")
    )
    assert {what for what, _ in lost} == {"kickwatch gave up CAP_BPF CAP_PERFMON when its probes were armed"}
    assert {remedy for _, remedy in lost} == {"restart kickwatch, which arms everything at its start"}
    assert restarted == []


@pytest.mark.provokes(CauseKind.PROC_SUBSET)
def test_a_proc_with_processes_alone_is_named_and_not_a_kernel_without_symbols() -> None:
    """As ProcSubset=pid does it. It asked for a kernel built with CONFIG_KALLSYMS."""
    doctor = [sys.executable, "-m", "kickwatch", "doctor", "--json", "--no-container"]
    subset = hiding("subset=pid")
    if subprocess.run([*inside(subset), "true"], check=False, capture_output=True).returncode:
        pytest.skip("feature: this kernel has no proc with processes alone")
    done = subprocess.run([*inside(subset), *doctor], capture_output=True, text=True, check=False)
    (lost,) = [one for one in json.loads(done.stdout)["capabilities"] if one["name"] == "observers"]
    assert "/proc is mounted with subset=pid" in lost["detail"]
    assert lost["remedy"].startswith("in a unit: ProcSubset=all;")
    everything: Step = ("mount", "-t", "proc", "proc", "/proc")
    done = subprocess.run([*inside(subset, everything), *doctor], capture_output=True, text=True, check=False)
    assert "observers" not in {one["name"] for one in json.loads(done.stdout)["capabilities"]}


@pytest.fixture
def containers() -> Iterator[Path]:
    """A memory cgroup with that of a container, whose program, another user's, waits at its barrier."""
    parent = Cgroups.read().memory_root / "kickwatch-hidden"
    own = parent / CONTAINER
    own.mkdir(parents=True)
    target = [*("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"), sys.executable, "-c", TARGET]
    process = subprocess.Popen(target, stdout=subprocess.PIPE)
    try:
        (own / "cgroup.procs").write_text(str(process.pid))
        assert process.stdout is not None
        process.stdout.readline()
        yield parent
    finally:
        process.kill()
        process.communicate()
        own.rmdir()
        parent.rmdir()


def waiting(containers: Path, options: str, *steps: Step, groups: int = 0) -> str:
    """What waiting for that container comes to without CAP_SYS_PTRACE, with a proc of these options, after `steps`."""
    member = ["setpriv", f"--groups={groups}", *without_capabilities("sys_ptrace")[1:]]
    command = [*inside(hiding(options), *steps), *member, sys.executable, "-c", WAITS_FOR_A_CONTAINER]
    done = subprocess.run([*command, containers, CONTAINER], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.provokes(CauseKind.HIDEPID)
@pytest.mark.parametrize("options", [f"hidepid=1,gid={GROUP}", f"hidepid=2,gid={GROUP}"])
def test_a_proc_that_hides_processes_is_named_and_both_its_remedies_show_them(containers: Path, options: str) -> None:
    what, _, remedy = waiting(containers, options).partition("|")
    assert "hidden: /proc is mounted with hidepid=" in what
    group = re.match(r"in a unit: SupplementaryGroups=(\d+); or: (mount .*)", remedy)
    assert group is not None
    assert waiting(containers, options, groups=int(group[1])).startswith("found ")
    assert waiting(containers, options, shlex.split(group[2])).startswith("found ")


@pytest.mark.provokes(CauseKind.HIDEPID_PTRACEABLE)
def test_a_proc_that_hides_processes_from_its_group_too_names_the_remount(containers: Path) -> None:
    what, _, remedy = waiting(containers, f"hidepid=4,gid={GROUP}", groups=GROUP).partition("|")
    assert "hidden: /proc is mounted with hidepid=ptraceable" in what
    assert waiting(containers, f"hidepid=4,gid={GROUP}", shlex.split(remedy)).startswith("found ")
