"""Events that a probe misses because the kernel does not run a BPF program recursively."""

from kickwatch.observe.windows import Sample


def refused(before: Sample, after: Sample) -> int:
    """Requests sent by an interrupt while the csd probe ran on the same CPU: usually none, sometimes one.

    Nothing else may be lost between two samples: no map is too small and no stack too short.
    """
    assert before.requests is not None
    assert after.requests is not None
    return after.requests.recursion_misses - before.requests.recursion_misses
