"""Children without asyncio's: exit statuses, also of one that a tracer holds back. Real processes."""

import asyncio
import os
import signal
from pathlib import Path
from subprocess import DEVNULL

import pytest

import kickwatch
from held_by_tracer import UNBLOCKED_S, Tracer, longest_step_s
from kickwatch.process.child import exit_status, reap_if_exited, start_child


def child(*command: str) -> int:
    return start_child(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL).pid


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)])
async def test_a_child_is_reaped_with_its_status(script: str, status: int) -> None:
    pid = await asyncio.to_thread(child, "sh", "-c", script)
    assert await exit_status(pid) == status
    with pytest.raises(ChildProcessError):
        reap_if_exited(pid)


async def test_a_child_that_runs_has_no_status() -> None:
    pid = await asyncio.to_thread(child, "sleep", "60")
    assert reap_if_exited(pid) is None
    os.kill(pid, signal.SIGKILL)
    assert await exit_status(pid) == 128 + signal.SIGKILL


async def test_an_exit_held_back_by_a_tracer_does_not_block_the_loop() -> None:
    pid = await asyncio.to_thread(child, "sleep", "60")
    tracer = await asyncio.to_thread(Tracer, pid)
    status = asyncio.create_task(exit_status(pid))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    longest = asyncio.create_task(longest_step_s())
    await asyncio.sleep(0.3)
    longest.cancel()
    assert await longest < UNBLOCKED_S
    assert not status.done()
    await asyncio.to_thread(tracer.release)
    assert await status == 128 + signal.SIGKILL


def test_no_child_of_the_package_is_asyncios() -> None:
    """Whichever waits for an exit in the event loop would block all of it."""
    sources = Path(kickwatch.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "create_subprocess" in path.read_text(encoding="utf-8")] == []
