"""One arena for malloc: what many threads need at one time is not kept by each of them for ever."""

import ctypes

_M_ARENA_MAX = -8  # <malloc.h>


def share_one_arena() -> None:
    """Let all threads allocate from one arena of glibc's malloc (mallopt(3)); call it before threads are started.

    By default up to eight arenas a CPU are made, and each keeps what it once held. Our threads hold the interpreter's
    lock most of the time, so that they would hardly allocate side by side. A C library without mallopt is left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
