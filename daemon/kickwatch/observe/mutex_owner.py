"""Where a mutex has the task that holds it: the offset of its owner.

In `struct mutex` the owner is the first word, since "locking/mutex: Rework mutex::owner" (4.10). On PREEMPT_RT a mutex
is an rt_mutex: its owner comes after the wait lock and the tree of waiters, and how long these are depends on the
kernel's configuration. There the offset is learnt from a task that got a mutex after waiting for it: contention.bpf.c.
"""

from kickwatch.observe.symbols import Symbols

UNKNOWN = 0xFFFFFFFF
"""The offset in the probe's configuration while it is not known: OWNER_UNKNOWN of waits.h."""

_ONLY_ON_RT = "rt_spin_lock"  # kernel/locking/spinlock_rt.c: a spinlock that sleeps


def owner_offset(symbols: Symbols) -> int | None:
    """The offset in bytes; None where it must be learnt."""
    return None if symbols.entries([_ONLY_ON_RT])[_ONLY_ON_RT] else 0
