"""Masks of CPUs as the probes have them: a fixed number of 64-bit words, CPU 0 in the lowest bit of the first."""

from collections.abc import Iterable, Iterator

from kickwatch.errors import ObserveError
from kickwatch.node.causes import TRACEPOINT_FOR_IPIS
from kickwatch.observe.layouts import MASK_WORDS

WORD_BITS = 64
MOST_CPUS = MASK_WORDS * WORD_BITS


def mask_words(possible: Iterable[int]) -> int:
    """Words of a CPU mask of this kernel. Raises ObserveError beyond 1024 CPUs."""
    last = max(possible, default=0)
    if last >= MOST_CPUS:
        what = f"this machine may have CPUs up to {last}, and the probes read masks of at most {MOST_CPUS} CPUs"
        fewer = f"boot with nr_cpus={MOST_CPUS}, which leaves the others unused"
        raise ObserveError(what, f"{fewer}; for IPIs by reason also {TRACEPOINT_FOR_IPIS}")
    return last // WORD_BITS + 1


def mask_of(cpus: Iterable[int]) -> tuple[int, ...]:
    """The CPUs as the words of a mask; those that have no place in it are left out."""
    words = [0] * MASK_WORDS
    for cpu in cpus:
        if cpu < MOST_CPUS:
            words[cpu // WORD_BITS] |= 1 << cpu % WORD_BITS
    return tuple(words)


def cpus_in(mask: int) -> Iterator[int]:
    """The CPUs of a mask that is one number, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
