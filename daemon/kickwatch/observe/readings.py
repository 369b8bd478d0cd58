"""What the probes' maps have in common: their own health, kernel stacks in words, and when a map may be emptied."""

import struct
from typing import NamedTuple

from kickwatch.observe.bpf import BpfMap
from kickwatch.observe.symbols import Symbols

_MAX_FRAMES = 48

PROGRAM_END_S = 0.02
"""After this time no program runs that has not seen a new configuration: one takes microseconds, and none sleeps.

A probe's maps refer to each other (a cell to its stack), and the kernel gives the id of a deleted stack to another one.
So they are emptied together, while the probe pauses. Nothing else would do: disarming it would broadcast.
"""


class Health(NamedTuple):
    """What a probe could not do, cumulative; the order is that of `enum health_index` in probe.h."""

    lost: int = 0
    stackless: int = 0
    unknown_kind: int = 0
    unmatched: int = 0


HEALTHY = Health()


def read_health(health: BpfMap) -> Health:
    """The probe's own counters, summed over CPUs."""
    counts = []
    for index in range(len(Health._fields)):
        value = health.get(struct.pack("=I", index)) or b""
        counts.append(sum(word for (word,) in struct.iter_unpack("=Q", value)))
    return Health(*counts)


def read_stack(stacks: BpfMap, stack_id: int, symbols: Symbols) -> tuple[str, ...]:
    """Function names of a stack id, innermost first; empty when the kernel has it no more."""
    value = stacks.get(struct.pack("=I", stack_id))
    if value is None:
        return ()
    addresses = struct.unpack(f"={_MAX_FRAMES}Q", value)
    return without_glue([symbols.resolve(address) for address in addresses if address])


def without_glue(stack: list[str]) -> tuple[str, ...]:
    """Drop what a raw tracepoint puts on top of the kernel's own frames: the probe itself and what called it."""
    for depth, name in enumerate(stack[:4]):
        if name.startswith("bpf_trace_run"):
            stack = stack[depth + 1 :]
            break
    while stack and stack[0].startswith(("__bpf_trace_", "__traceiter_", "__probestub_")):
        stack = stack[1:]
    return tuple(stack)
