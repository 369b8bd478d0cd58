"""Keep glibc's malloc small in a process that runs for months."""

import ctypes

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_DEFAULT_THRESHOLD_BYTES = 128 * 1024  # mallopt(3)


def keep_malloc_small() -> None:
    """Limit malloc to one arena, and let it return freed memory (mallopt(3)). Call it before starting threads.

    By default glibc creates up to eight arenas per CPU, and each keeps the memory it once used. Python's threads hold
    the interpreter's lock most of the time, so they rarely allocate in parallel. glibc also raises its thresholds for
    returning memory, up to 32 and 64 MiB, as soon as a large block is freed; setting them turns that off. Does nothing
    without mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD_BYTES)
