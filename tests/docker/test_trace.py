"""`kickwatch trace` on the real engine: the file keeps the rules of its format, and agrees with the count."""

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from command import CommandResult, ended, kickwatch, start
from leftovers import leftovers
from needs import ipi_rung
from slowness import SLOWNESS
from trace_reader import TraceFile, read_trace

MOST_BYTES = 20 << 20
pytestmark = [pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(200)]
V1_LIMIT = Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes")


@pytest.fixture(autouse=True)
def csd_rung() -> None:
    if ipi_rung() != "csd":
        pytest.skip("feature: single requests are listed at csd:csd_queue_cpu alone, which this kernel lacks")


def traced(out: Path, containers: int, *arguments: str) -> tuple[CommandResult, TraceFile]:
    done = kickwatch("trace", "--containers", str(containers), "--out", str(out), *arguments)
    assert done.out == ""
    content = out.read_bytes()
    assert len(content) <= MOST_BYTES
    return done, read_trace(content)


def agrees(done: CommandResult, read: TraceFile) -> None:
    """The timeline has exactly the calls of the bill. Only an interrupt's request can be lost."""
    facts = read.facts
    calls = [call for call in read.named("call") if "begin" not in call["args"]]
    assert len(calls) == facts["calls_on_timeline"] == facts["calls_on_bill"] > 0, facts
    assert f"{len(calls)} multi-CPU calls on the timeline, {len(calls)} on the bill" in done.err
    assert done.status == (0 if facts["complete"] else 4), done.err
    assert facts["lost_calls"] == 0
    assert abs(facts["requests_on_timeline"] - facts["requests_on_bill"]) <= facts["lost_events"] + 1
    assert facts["lost_events"] <= 0.01 * facts["requests_on_bill"] + 3


def test_a_healthy_container_is_drawn_from_create_to_remove(tmp_path: Path) -> None:
    before = leftovers()
    done, read = traced(tmp_path / "trace.json", 3)
    assert leftovers() == before
    agrees(done, read)
    assert Counter(step["name"] for step in read.named("engine")) == dict.fromkeys(
        ("create", "start", "wait", "remove"), 3
    )
    assert [life["name"] for life in read.named("container")] == [f"container {index}" for index in range(3)]
    assert {"runc", "workload"} <= {program["name"].partition(":")[0] for program in read.named("process")}
    assert {program["args"].get("container") for program in read.named("process")} >= {0, 1, 2}
    cgroups = Counter(one["name"] for one in read.instants if one["cat"] == "cgroup")
    assert cgroups["cgroup mkdir"] >= 3
    assert cgroups["cgroup rmdir"] >= 3
    assert len(read.arrows) >= 0.5 * read.facts["requests_on_timeline"]
    known = {one["args"]["reason"] for one in read.named("single")}
    assert {"rcu_exp_handler", "rcu_barrier_handler"} <= known
    assert all(read.stack(one) for one in read.named("call"))
    assert [call for call in read.named("call") if call["args"].get("creation path")] == []


@pytest.mark.skipif(not V1_LIMIT.exists(), reason="the kmem TCP limit exists only on cgroup v1")
def test_each_containers_static_key_is_a_slice_on_every_cpu() -> None:
    """Standard output takes the file alone. A dying memcg can keep the key on, but not in three consecutive runs."""
    guilty: list[dict[str, Any]] = []
    for _ in range(3):
        done = kickwatch("trace", "--containers", "3", "--out", "-", "--set", "workload.kmem_tcp_limit_bytes=33554432")
        read = read_trace(done.out.encode())
        agrees(done, read)
        guilty = [call for call in read.named("call") if call["args"].get("creation path")]
        if guilty:
            break
    assert guilty
    assert len(guilty) % 3 == 0  # patching kernel text takes three
    for call in guilty:
        assert (call["args"]["reason"], call["args"]["origin"]) == ("do_sync_core", "memcg")
        assert "mem_cgroup_write" in read.stack(call)
        targets = {read.group(there) for begin, there in read.arrows if begin is call}
        others = {f"CPU {cpu}" for cpu in range(os.cpu_count() or 1)} - {read.group(call)}
        assert targets == others
    lives = [(life["ts"], life["ts"] + life["dur"]) for life in read.named("container")]
    hit = {index for index, (began, over) in enumerate(lives) for call in guilty if began <= call["ts"] <= over}
    assert hit


@pytest.mark.long
def test_an_interrupted_trace_leaves_nothing_and_writes_nothing(tmp_path: Path) -> None:
    before, out = leftovers(), tmp_path / "trace.json"
    running = start("trace", "--containers", "20", "--out", str(out))
    _until_a_container_runs()
    running.send_signal(signal.SIGINT)
    done = ended(running)
    assert (done.status, list(tmp_path.iterdir())) == (1, [])
    assert "interrupted" in done.complaint
    assert leftovers() == before


@pytest.mark.long
def test_what_a_killed_trace_leaves_the_next_run_removes(tmp_path: Path) -> None:
    before, out = leftovers(), tmp_path / "trace.json"
    running = start("trace", "--containers", "20", "--out", str(out))
    _until_a_container_runs()
    running.kill()
    ended(running)
    assert list(tmp_path.iterdir()) == []
    assert kickwatch("trace", "--containers", "1", "--out", str(out)).status in {0, 4}
    assert leftovers() == before


def _until_a_container_runs() -> None:
    """Its second one: the first is the warm-up's."""
    seen: set[str] = set()
    deadline = time.monotonic() + 60 * SLOWNESS
    while len(seen) < 2:
        assert time.monotonic() < deadline
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", "label=kickwatch.trial"], capture_output=True, text=True, check=True
        )
        seen |= set(listed.stdout.split())
        time.sleep(0.05)


def test_without_the_tracepoint_one_line_says_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    done = kickwatch("trace", "--containers", "1", "--out", str(out), KICKWATCH_RUNG_IPIS="kprobe")
    assert done.status == 1
    assert "no trace on this kernel: single requests cannot be listed" in done.complaint
    assert "(KICKWATCH_RUNG_IPIS=kprobe leaves the tracepoint out): unset it" in done.complaint
    assert "Linux 6.5 or later" in done.complaint
    assert not out.exists()


def test_a_file_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = kickwatch("trace", "--out", str(tmp_path / "missing" / "trace.json"))
    assert done.status == 2, done.err
    assert "missing" in done.complaint
