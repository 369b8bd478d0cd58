"""Threads of the daemon share one arena of malloc: seen in the mappings of a process of the test's own."""

import subprocess
import sys

PROGRAM = """
import ctypes, sys, threading
from pathlib import Path
from kickwatch.process.allocator import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)

def allocate():
    together.wait()
    for _ in range(100):
        libc.malloc(4000)  # ctypes lets go of the interpreter's lock
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
starts = [int(line.split("-")[0], 16) for line in Path("/proc/self/maps").read_text().splitlines() if "/" not in line]
print(sum(start % (64 << 20) == 0 for start in starts))  # a thread's arena begins at a multiple of HEAP_MAX_SIZE
"""


def arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_threads_share_one_arena() -> None:
    assert arenas("by default") > 0
    assert arenas("shared") == 0
