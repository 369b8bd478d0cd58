"""Runtimes that do not exit when killed, and the processes they leave to us: real processes in separate sessions."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from held_by_tracer import UNBLOCKED_S, Tracer, longest_step_s
from kickwatch.workload import oci_runtime
from kickwatch.workload.oci_processes import children, kill_workers_on, set_subreaper
from kickwatch.workload.oci_runtime import Runtime


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    before = set_subreaper()
    yield
    set_subreaper(on=before)


def orphan(script: str) -> int:
    """The pid of a process in its own session whose parent has exited, so it is our child."""
    command = f"setsid sh -c '{script}' >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return int(done.stdout)


def until_zombie(pid: int) -> None:
    for _ in range(500):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} did not exit")


def runtime(tmp_path: Path, script: str = "exit 0", timeout_s: float = 0.5) -> Runtime:
    program = tmp_path / "runtime"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Runtime(program, tmp_path / "state", timeout_s)


def test_strays_of_a_runtime_are_reaped_and_other_children_are_not(tmp_path: Path) -> None:
    ours = subprocess.Popen(["true"])
    strays = [orphan("sleep 0.2; exec 3</dev/null") for _ in range(2)]
    kept = orphan("sleep 0.2")
    for pid in (ours.pid, kept, *strays):
        until_zombie(pid)
    runtime(tmp_path).reap_strays({kept})
    left = set(children())
    assert left & {ours.pid, kept, *strays} == {ours.pid, kept}
    os.waitpid(kept, 0)
    assert ours.wait() == 0


def test_workers_on_a_bundle_are_killed_even_outside_the_process_group(tmp_path: Path) -> None:
    bundle, made = tmp_path / "bundles" / "one", tmp_path / "made"
    script = (
        f"setsid sh -c 'sleep 20; touch {made}' {bundle} >/dev/null 2>&1 & setsid sleep 30 >/dev/null 2>&1 & echo $!"
    )
    other = int(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)
    command_line = f"sh\0-c\0sleep 20; touch {made}\0{bundle}\0"
    try:
        until_it_runs(command_line)
        kill_workers_on(bundle)
        assert command_line not in command_lines()
        assert other in children()
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)


def until_it_runs(command_line: str) -> None:
    """Wait for a child with this command line; during execve it cannot be read for a moment."""
    deadline = time.monotonic() + 5
    while command_line not in command_lines():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def command_lines() -> set[str]:
    """The command lines of all processes of this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.add((process / "cmdline").read_text(errors="replace"))
    return found


async def test_a_killed_runtime_that_does_not_exit_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_runtime, "EXIT_TIMEOUT_S", 0.2)
    driven = runtime(tmp_path, "exec sleep 60", timeout_s=60)
    call = asyncio.create_task(driven.call(tmp_path / "log", "run"))
    while not driven.running_pids:  # noqa: ASYNC110 -- there is no event to wait for
        await asyncio.sleep(0.01)
    (pid,) = driven.running_pids
    tracer = await asyncio.to_thread(Tracer, pid)
    longest = asyncio.create_task(longest_step_s())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    longest.cancel()
    assert await longest < UNBLOCKED_S  # the loop was never blocked
    assert pid in await asyncio.to_thread(children)  # killed, and still held by the tracer
    await asyncio.to_thread(tracer.release)
    await asyncio.to_thread(driven.reap_strays, set())
    assert pid not in await asyncio.to_thread(children)
