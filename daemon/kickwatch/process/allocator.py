"""One malloc arena for all threads: memory that one thread frees can be used by another."""

import ctypes

_M_ARENA_MAX = -8  # <malloc.h>


def share_one_arena() -> None:
    """Limit glibc's malloc to one arena (mallopt(3)). Call it before starting threads.

    By default glibc creates up to eight arenas per CPU, and each keeps the memory it once used. Python's threads hold
    the interpreter's lock most of the time, so they rarely allocate in parallel. Does nothing without mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
