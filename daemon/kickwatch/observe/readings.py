"""What the maps of all probes have in common: health counters, kernel stacks, and when a map may be emptied."""

import struct
from collections.abc import Container, Iterable
from typing import NamedTuple

from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.layouts import MAX_FRAMES
from kickwatch.observe.symbols import Symbols

INDEX = struct.Struct("=I")
"""The key of an array's entry, or of a stack."""

_FRAMES = struct.Struct(f"={MAX_FRAMES}Q")

# A probe on a function's return, or the function graph tracer, puts them in place of the caller's address.
_TRAMPOLINES = frozenset(
    ("kretprobe_trampoline", "__kretprobe_trampoline", "arch_rethook_trampoline", "return_to_handler")
)

PROGRAM_END_S = 0.02
"""After this time every running program has seen a new configuration: they take microseconds, and none sleeps.

A probe's maps refer to each other (a cell to its stack), and the kernel gives the id of a deleted stack to another one.
So they are emptied together, while the probe is paused. Disarming it instead would broadcast.
"""


class Health(NamedTuple):
    """Events that a probe could not count in full, cumulative; in the order of `enum health_index` in probe.h."""

    lost: int = 0
    stackless: int = 0
    unknown_kind: int = 0
    unmatched: int = 0


HEALTHY = Health()


def read_health(health: BpfMap) -> Health:
    """The probe's own counters, summed over CPUs. Raises ObserveError."""
    return Health(*sums_of(health, range(len(Health._fields))))


def entry(array: BpfMap, index: int) -> bytes:
    """An entry of an array. Arrays have all entries from the start: a missing one is an error. Raises ObserveError."""
    return array.entries(range(index, index + 1))[0]


def sums_of(counters: BpfMap, indices: range) -> list[int]:
    """Consecutive counters of an array of 64-bit counters, each summed over CPUs. Raises ObserveError."""
    return [sum(memoryview(value).cast("Q")) for value in counters.entries(indices)]


def read_stack(
    stacks: BpfMap, stack_id: int, symbols: Symbols, caller: int = 0, probed: Container[str] = ()
) -> tuple[str, ...]:
    """Function names of a stack id, innermost first; empty if the kernel no longer has it. Raises ObserveError.

    `caller`: of a stack taken at the entry of one of the functions `probed`, its return address; 0 for any other stack.
    """
    value = stacks.get(INDEX.pack(stack_id))
    if value is None:
        return ()
    addresses = [address for address in _FRAMES.unpack(value) if address]
    names = [symbols.resolve(address) for address in addresses]
    if caller:
        # A stack without the probed function was taken again without its innermost frames (STACK_ID of probe.h).
        place = 1 if names and names[0] in probed else 0
        name = symbols.resolve(caller)
        if addresses[place : place + 1] != [caller] and name not in _TRAMPOLINES:
            names.insert(place, name)
    return without_glue(names)


def try_maps(probe: BpfObject, *, emptied: Iterable[str], walked: Iterable[str]) -> None:
    """Read, write and walk the maps of a probe as the daemon does while it runs. Raises ObserveError.

    A look-up of a missing key does not distinguish an empty map from one that may not be read. So the first look-up is
    of an entry that always exists. The deleted keys are zeros, which no probe writes.
    """
    entry(probe.map("config"), 0)
    for name in (*emptied, *walked):
        next(probe.map(name).keys(), None)
    for name in emptied:
        found = probe.map(name)
        found.delete(bytes(found.key_bytes))


def without_glue(stack: list[str]) -> tuple[str, ...]:
    """Drop the innermost frames of a raw tracepoint: the program itself and its callers."""
    for depth, name in enumerate(stack[:4]):
        if name.startswith("bpf_trace_run"):
            stack = stack[depth + 1 :]
            break
    while stack and stack[0].startswith(("__bpf_trace_", "__traceiter_", "__probestub_")):
        stack = stack[1:]
    return tuple(stack)
