"""A process whose exit a tracer holds back from its parent, and how long that blocked the event loop."""

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import suppress

RELEASED_S = 30.0  # then the tracer lets go by itself, and whoever waited for the exit in the event loop is seen
UNBLOCKED_S = 15.0  # the longest step of a loop that waits for no exit, on a machine that may stand still for seconds
# Traces the process in its argument (PTRACE_SEIZE) until its own standard input is closed; the parent cannot reap an
# exited tracee.
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0
print("traces", flush=True)
sys.stdin.read()
"""


class Tracer:
    """It holds the exit of `pid` back until `release`, or for `RELEASED_S`. Blocks until it does."""

    def __init__(self, pid: int) -> None:
        command = [sys.executable, "-c", TRACER, str(pid)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "traces\n"
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()

    @property
    def holds(self) -> bool:
        """Whether nobody has released it, nor its time has passed."""
        return self._thread.is_alive()

    def release(self) -> None:
        """Let go of the process. Blocks until the tracer has ended."""
        self._released.set()
        self._thread.join()

    def _hold(self) -> None:
        self._released.wait(RELEASED_S)
        self._process.communicate()


async def longest_step_s() -> float:
    """Until it is cancelled: the longest time that the event loop took for a sleep of 10 ms."""
    longest = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
    return longest
