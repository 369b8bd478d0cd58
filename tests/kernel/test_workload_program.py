"""The native programs: the container's program at its barrier, and the barriers of the positive control."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.errors import KickwatchError
from kickwatch.native import binary
from kickwatch.native.driver import Answer, Helper, HelperError
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import Cgroups, kmem_usage_bytes
from needs import ipi_rung

pytestmark = pytest.mark.kernel

GROUP = f"kickwatch-test-program-{os.getpid()}"


@pytest.fixture
def memcg() -> Iterator[Path]:
    """A memory cgroup of the test that can contain processes: on v2, one without controllers for children."""
    own = Cgroups.read().ensure_own(GROUP)
    leaf = own / "leaf"
    leaf.mkdir()
    yield leaf
    assert remove_tree(own) == ()


def start(*arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """The workload program, run by `prefix` if given."""
    return subprocess.Popen([*prefix, str(binary("workload")), *arguments], stderr=subprocess.PIPE, text=True)


def wait_for_barrier(pid: int, deadline_s: float = 10) -> None:
    """Release the program as kickwatch does: once /proc shows its name."""
    until = time.monotonic() + deadline_s
    while not at_barrier(pid):
        assert time.monotonic() < until, f"not at the barrier: {Path(f'/proc/{pid}/comm').read_text()}"
        time.sleep(0.002)


def exit_status_and_error(program: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and standard error."""
    _, stderr = program.communicate(timeout=20)
    return program.returncode, stderr


def test_the_programs_run_in_an_empty_root(tmp_path: Path) -> None:
    """There they report their wrong arguments, not a missing loader."""
    for name in ("workload", "kw-helper"):
        shutil.copy(binary(name), tmp_path)
        done = subprocess.run(["chroot", tmp_path, f"/{name}", "--what"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{name}: ")


def test_a_program_that_was_not_built_is_an_error() -> None:
    with pytest.raises(KickwatchError, match="make native"):
        binary("nothing")


def test_a_released_program_exits_0_and_leaves_no_file(tmp_path: Path) -> None:
    program = start("--dir", str(tmp_path))
    wait_for_barrier(program.pid)
    assert len(list(tmp_path.iterdir())) == 1
    program.send_signal(signal.SIGUSR1)
    assert exit_status_and_error(program) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_release_before_the_barrier_is_not_lost(tmp_path: Path) -> None:
    """The signal is sent as soon as it is blocked. If the program is already at the barrier, the test tries again."""
    early = 0
    for _ in range(50):
        program = start("--dir", str(tmp_path), "--deadline-ms", "10000")
        while not (blocked := blocks_release(program.pid)) and not at_barrier(program.pid):
            time.sleep(0.0001)
        program.send_signal(signal.SIGUSR1)
        assert exit_status_and_error(program) == (0, "")
        early += blocked
        if early == 3:
            return
    pytest.fail("never in time: the program was at its barrier each time")


def blocks_release(pid: int) -> bool:
    """True if SIGUSR1 is blocked. In sigtimedwait(), that is at the barrier, the kernel removes it from the mask."""
    return int(status_of(pid)["SigBlk"], 16) & 1 << (signal.SIGUSR1 - 1) != 0


def at_barrier(pid: int) -> bool:
    """True if /proc shows the name of the barrier."""
    return Path(f"/proc/{pid}/comm").read_text() == "kw-barrier\n"


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as words."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_program_that_is_not_released_exits_3(tmp_path: Path) -> None:
    before = time.monotonic()
    status, complaint = exit_status_and_error(start("--dir", str(tmp_path), "--deadline-ms", "300"))
    assert status == 3
    assert complaint == "workload: the barrier was not released within 300 ms\n"
    assert 0.3 <= time.monotonic() - before < 5
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_it_at_the_barrier_and_during_the_hold(tmp_path: Path) -> None:
    for hold in (False, True):
        program = start("--dir", str(tmp_path), "--hold-ms", "60000")
        wait_for_barrier(program.pid)
        if hold:
            program.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
        program.send_signal(signal.SIGTERM)
        assert exit_status_and_error(program)[0] == 128 + signal.SIGTERM


def test_the_hold_lasts_as_long_as_requested(tmp_path: Path) -> None:
    program = start("--dir", str(tmp_path), "--hold-ms", "300")
    wait_for_barrier(program.pid)
    released = time.monotonic()
    program.send_signal(signal.SIGUSR1)
    assert exit_status_and_error(program)[0] == 0
    assert 0.3 <= time.monotonic() - released < 5


@pytest.mark.parametrize("arguments", [["--hold-ms"], ["--hold-ms", "x"], ["--deadline-ms", "-1"], ["--what", "1"]])
def test_usage(arguments: list[str]) -> None:
    status, complaint = exit_status_and_error(start(*arguments))
    assert status == 2
    assert complaint.count("\n") == 1


def test_as_init_of_a_pid_namespace(tmp_path: Path) -> None:
    """There the kernel drops signals with default action: both must be blocked."""
    for number, expected in ((signal.SIGUSR1, 0), (signal.SIGTERM, 128 + signal.SIGTERM)):
        with start("--dir", str(tmp_path), prefix=("unshare", "--pid", "--fork", "--kill-child")) as unshare:
            init = child_of(unshare.pid)
            wait_for_barrier(init)
            assert status_of(init)["NSpid"].split()[-1] == "1"
            os.kill(init, number)
            assert unshare.wait(20) == expected


def child_of(pid: int) -> int:
    """The only child, once it exists."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(1000):
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.002)
    raise AssertionError(f"{pid} has no child")


def test_kernel_memory_is_charged_to_its_memcg(memcg: Path, tmp_path: Path) -> None:
    enter = ("sh", "-c", f'echo $$ > {memcg}/cgroup.procs && exec "$0" "$@"')
    program = start("--dir", str(tmp_path), prefix=enter)
    wait_for_barrier(program.pid)
    until = time.monotonic() + 3  # v2's statistics may be two seconds old
    while (charged := kmem_usage_bytes(memcg)) is not None and charged <= 100_000 and time.monotonic() < until:
        time.sleep(0.1)
    program.send_signal(signal.SIGUSR1)
    assert exit_status_and_error(program)[0] == 0
    assert charged is not None
    assert charged > 100_000


def test_it_holds_objects_of_many_kinds(tmp_path: Path) -> None:
    program = start("--dir", str(tmp_path))
    wait_for_barrier(program.pid)
    links = [str(entry.readlink()) for entry in Path(f"/proc/{program.pid}/fd").iterdir()]
    kinds = {link.removeprefix("anon_inode:").partition(":[")[0] for link in links}
    program.send_signal(signal.SIGUSR1)
    assert exit_status_and_error(program) == (0, "")
    assert {"pipe", "socket", "[eventpoll]", "[eventfd]", "[timerfd]", "[signalfd]", "inotify"} <= kinds
    assert sum(link.startswith(str(tmp_path)) and link.endswith("(deleted)") for link in links) == 16


def test_it_reaches_the_barrier_without_a_place_for_files() -> None:
    """The root and temporary file systems are read-only, as in some hardened containers."""
    script = (
        'for d in / /dev /dev/shm /run /tmp; do mount --bind $d $d; mount -o remount,bind,ro $d; done; cd /; exec "$0"'
    )
    program = start(prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", script))
    wait_for_barrier(program.pid)
    program.send_signal(signal.SIGUSR1)
    status, complaint = exit_status_and_error(program)
    assert status == 0
    assert complaint == "workload: not available here: a directory to write in (Read-only file system)\n"


# The barriers of the positive control, compared with a second observer.

MANY, SINGLE = 23, 7


def two_cpus() -> str:
    """The CPUs of sender and target."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("feature: one CPU has no other to interrupt")
    return f"{cpus[0]},{cpus[1]}"


def bounds(answer: Answer, name: str) -> tuple[int, int]:
    """LOW:HIGH."""
    low, high = answer.fields[name].split(":")
    return int(low), int(high)


async def test_barriers_are_made_and_reported(tmp_path: Path) -> None:
    async with Helper(["barriers", str(MANY), str(SINGLE), two_cpus()]) as helper:
        assert helper.ready.fields["targets"] == "1"
        many = await helper.ask("many", 20)
        assert many.fields["performed"] == str(MANY)
        low, high = bounds(many, "calls")
        assert 0 < low <= high == MANY
        if helper.ready.fields["rseq"] == "yes":
            single = await helper.ask("single", 20)
            assert bounds(single, "requests")[1] == SINGLE
        with pytest.raises(HelperError, match="unknown command"):
            await helper.ask("all", 5)


@pytest.mark.parametrize("cpus", ["0", "0,0", "0,x", "", "0,99999"])
async def test_barriers_need_two_different_cpus(cpus: str) -> None:
    with pytest.raises(HelperError, match="status 2"):
        await Helper(["barriers", "23", "7", cpus]).__aenter__()


async def test_barriers_on_a_cpu_that_does_not_exist() -> None:
    async with Helper(["barriers", "23", "7", "0,4095"]) as helper:
        with pytest.raises(HelperError, match="after 0 barriers: Invalid argument"):
            await helper.ask("many", 20)


async def make_barriers() -> tuple[int, tuple[Answer, Answer]]:
    """One run: the child's process id and its two answers."""
    async with Helper(["barriers", str(MANY), str(SINGLE), two_cpus()]) as helper:
        return helper.pid, (await helper.ask("many", 20), await helper.ask("single", 20))


# The interval is armed after the tracepoint; the first line comes before both.
BPFTRACE = """
tracepoint:csd:csd_queue_cpu /comm == "kw-helper"/ { @[pid, ksym(args->func)] = count(); }
interval:s:1 { printf("armed\\n"); }
"""


@pytest.mark.usefixtures("tracefs")  # bpftrace needs it
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_bpftrace_counts_the_same_barriers(busy: bool) -> None:
    """Each run has another process id, so one observer can distinguish them. Also on busy CPUs."""
    if ipi_rung() != "csd":
        pytest.skip("feature: no csd:csd_queue_cpu (6.5) for bpftrace to count requests by")
    if shutil.which("bpftrace") is None:
        pytest.fail("no bpftrace here: deploy/setup test-packages")
    observer = subprocess.Popen(
        ["bpftrace", "-f", "json", "-e", BPFTRACE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    loads = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(4 if busy else 0)]
    runs: dict[int, tuple[Answer, Answer]] = {}
    try:
        assert observer.stdout is not None
        assert "attached_probes" in observer.stdout.readline()
        assert "armed" in observer.stdout.readline()
        for _ in range(5):
            pid, answers = asyncio.run(make_barriers())
            runs[pid] = answers
    finally:
        for load in loads:
            load.kill()
            load.wait()
        observer.send_signal(signal.SIGINT)
        output, _ = observer.communicate(timeout=30)
    seen = json.loads(next(line for line in output.splitlines() if '"type": "map"' in line))["data"]["@"]
    doubtful = 0
    for pid, (many, single) in runs.items():
        for answer, func in ((many, "ipi_mb"), (single, "ipi_rseq")):
            low, high = bounds(answer, "requests")
            assert low <= seen.get(f"{pid},{func}", 0) <= high
            doubtful += low < high and answer.fields["policy"] == "fifo"
    assert doubtful <= 1  # of ten: even a real-time task can lose its CPU to the host, but rarely
