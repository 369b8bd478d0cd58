"""A program that makes another CPU flush its TLB, again and again."""


def shootdowns(hashed_mib: int, pause: str = "pass") -> str:
    """The program, for `python -c`. `hashed_mib`: how much its other thread hashes, which is how long it takes.

    One thread computes on CPU 1 without the interpreter's lock, the other frees pages on CPU 0: a shootdown each time,
    and then `pause`, a statement.
    """
    return f"""
import hashlib, mmap, os, threading, time
def compute():
    os.sched_setaffinity(0, {{1}})
    hashlib.sha256(bytes({hashed_mib} << 20))
other = threading.Thread(target=compute)
other.start()
os.sched_setaffinity(0, {{0}})
pages = mmap.mmap(-1, 1 << 20)
while other.is_alive():
    pages[0] = 1
    pages.madvise(mmap.MADV_DONTNEED)
    {pause}
"""
