"""The events that no probe can see: the kernel refuses to run a program again inside itself."""

from kickwatch.observe.observatory import Sample


def refused(before: Sample, after: Sample) -> int:
    """Requests that an interrupt sent while the csd probe ran on the same CPU: mostly none, now and then one.

    Nothing else may be lost between two samples: no map was too small and no stack too short.
    """
    assert before.requests is not None
    assert after.requests is not None
    return after.requests.recursion_misses - before.requests.recursion_misses
