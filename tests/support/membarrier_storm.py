"""Another process that calls membarrier all the time, as some runtimes do for garbage collection."""

import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

_STORM = """
import ctypes, hashlib, os, platform, threading
os.sched_setaffinity(0, CPUS)
NUMBER = {"x86_64": 324, "aarch64": 283}[platform.machine()]
REGISTER, BARRIER, REGISTER_RSEQ, BARRIER_RSEQ = 16, 8, 256, 128
libc = ctypes.CDLL(None, use_errno=True)  # its calls release the interpreter's lock

def membarrier(command):
    if libc.syscall(NUMBER, command, 0, 0):
        raise OSError(ctypes.get_errno(), "membarrier")

membarrier(REGISTER)
membarrier(REGISTER_RSEQ)

def compute():  # on other CPUs, without the interpreter's lock: for these threads barriers interrupt them
    while True:
        hashlib.sha256(PAGES)

PAGES = bytes(64 << 20)
for _ in CPUS:
    threading.Thread(target=compute, daemon=True).start()
print("storming", flush=True)
while True:
    membarrier(BARRIER)
    membarrier(BARRIER_RSEQ)
"""


@contextmanager
def membarrier_storm(cpus: Collection[int]) -> Iterator[None]:
    """One thread calls it and others compute, all on `cpus`: each barrier interrupts the CPUs where they run."""
    script = _STORM.replace("CPUS", str(set(cpus)))
    storm = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert storm.stdout is not None
        assert storm.stdout.readline() == b"storming\n"
        yield
    finally:
        storm.kill()
        storm.communicate()
