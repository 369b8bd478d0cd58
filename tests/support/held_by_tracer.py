"""A process whose exit a tracer holds back from its parent, and how long that blocked the event loop."""

import asyncio
import subprocess
import sys
import time
from contextlib import suppress

# Traces the process in its argument (PTRACE_SEIZE) until its own standard input is closed; the parent cannot reap an
# exited tracee.
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0
print("traces", flush=True)
sys.stdin.read()
"""


def trace(pid: int) -> "subprocess.Popen[str]":
    """Start a tracer; `communicate` ends it."""
    command = [sys.executable, "-c", TRACER, str(pid)]
    tracer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "traces\n"
    return tracer


async def longest_step_s() -> float:
    """Until it is cancelled: the longest time that the event loop took for a sleep of 10 ms."""
    longest = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
    return longest
