"""Child processes without asyncio's: since Python 3.12 asyncio waits in the event loop for an exit status.

It does so once the pidfd reports the exit. A tracer can hold the status back after that, and then nothing else of this
process runs. Here the status is asked for without waiting.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

POLL_S = 0.005
_ADOPTION_TIMEOUT_S = 2.0


def start_child(
    command: Sequence[str | Path],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a program; `exit_status` reaps it, never the object. Blocks until the program runs. Raises OSError."""
    process = subprocess.Popen(
        command, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=start_new_session
    )
    process.returncode = 0  # so that the object does not wait for it
    return process


async def exit_status(pid: int) -> int:
    """Wait for our child `pid` and reap it: its exit status, or 128 + the signal that killed it.

    The pid cannot be reused before the child is reaped here. Raises ChildProcessError if it is not our child.
    """
    await _until_our_child(pid)
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # ENOSYS before "pid: add pidfd_open()", 5.3
        return await _poll_exit_status(pid)
    exited = asyncio.Event()
    loop.add_reader(pidfd, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return await _poll_exit_status(pid)


async def _poll_exit_status(pid: int) -> int:
    """Poll, because a tracer can keep the status from us after the pidfd has reported the exit."""
    while (status := reap_if_exited(pid)) is None:  # noqa: ASYNC110 -- there is no event to wait for
        await asyncio.sleep(POLL_S)
    return status


async def _until_our_child(pid: int) -> None:
    """Wait until `pid` is our child: crun returns a moment before the process exits that started the container."""
    for left in reversed(range(int(_ADOPTION_TIMEOUT_S / POLL_S))):
        if _is_our_child(pid):
            return
        if left:
            await asyncio.sleep(POLL_S)
    raise ChildProcessError(f"process {pid} is not our child")


def _is_our_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_if_exited(pid: int) -> int | None:
    """Reap our child `pid` if it has exited and return its exit status; None while it runs."""
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
