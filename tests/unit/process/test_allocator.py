"""The daemon's malloc: one arena for all threads, and freed memory goes back to the kernel, in a process of its own."""

import subprocess
import sys

ARENAS = """
import ctypes, sys, threading
from pathlib import Path
from kickwatch.process.allocator import keep_malloc_small

if sys.argv[1] == "small":
    keep_malloc_small()
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

HEAP = """
import ctypes, sys
from kickwatch.process.allocator import keep_malloc_small

if sys.argv[1] == "small":
    keep_malloc_small()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(16 << 20))  # a mapping of its own; glibc then raises its thresholds
before = libc.sbrk(0)
block = libc.malloc(8 << 20)
print(libc.sbrk(0) - before)  # above zero if the block lies in the heap, which seldom shrinks
"""


def printed(program: str, how: str) -> int:
    done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_threads_share_one_arena() -> None:
    assert printed(ARENAS, "by default") > 0
    assert printed(ARENAS, "small") == 0


def test_large_blocks_stay_out_of_the_heap_after_one_was_freed() -> None:
    assert printed(HEAP, "by default") > 0
    assert printed(HEAP, "small") == 0
