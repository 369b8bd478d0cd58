"""The C structs that Python and the BPF programs exchange through maps, member by member.

A test compares them with the debug information (BTF) of the built objects.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """A C struct: its name, and each member with its format (struct module). There is no padding between members.

    A member that is a struct itself has the format of bytes: it is packed and unpacked separately.
    """

    name: str
    members: Mapping[str, str]
    packed: struct.Struct

    @property
    def size(self) -> int:
        """Bytes."""
        return self.packed.size

    def offset_of(self, member: str) -> int:
        """Bytes before a member."""
        names = list(self.members)
        before = "".join(self.members[name] for name in names[: names.index(member)])
        return struct.calcsize("=" + before)

    def pack(self, *values: Any) -> bytes:
        """The members' values, arrays element by element, as the programs read them."""
        return self.packed.pack(*values)


def _layout(name: str, **members: "str | Layout") -> Layout:
    formats = {key: member if isinstance(member, str) else f"{member.size}s" for key, member in members.items()}
    return Layout(name, formats, struct.Struct("=" + "".join(formats.values())))


BANKS = 2  # of cells.h, as the next three
FREQUENT_FUNCS = 6
NEAR_CPUS = 64
TARGETS = NEAR_CPUS + 8
MANY_RANGES = 4  # of csd.bpf.c
MASK_WORDS = 16  # of masks.h
MAX_FRAMES = 48  # of probe.h
HISTOGRAM_BUCKETS = 40  # of waits.h

CELLS_CONFIG = _layout(
    "cells_config",
    frequent=f"{FREQUENT_FUNCS}Q",
    paused="I",
    bank="I",
    isolating="I",
    broadcast_targets="I",
    slab_mutex="Q",
    owner="Q",
    far_cpus="I",
    controlled="I",
    control="16s",
    isolated=f"{MASK_WORDS}Q",
)
CSD_CONFIG = _layout("csd_config", cells=CELLS_CONFIG, many_start=f"{MANY_RANGES}Q", many_end=f"{MANY_RANGES}Q")
CALLS_CONFIG = _layout("calls_config", cells=CELLS_CONFIG, words="I", has="I", online=f"{MASK_WORDS}Q")
CELL_KEY = _layout("cell_key", func="Q", stack="i", flags="I", caller="Q")
FIGURES = _layout("figures", requests="Q", calls="Q", broadcasts="Q", isolated="Q")
CELL = _layout("cell", banks=f"{BANKS * len(FIGURES.members)}Q")
EXAMPLE = _layout("example", caller="Q", stack_plus_one="i", unused="I")
THIS_CPU = _layout(
    "this_cpu",
    targets=f"{BANKS * TARGETS}Q",
    call="24s",
    examples="Q",
    frequent=f"{FREQUENT_FUNCS * BANKS * len(FIGURES.members)}Q",
    unused="4Q",
    hits=f"{BANKS * FREQUENT_FUNCS * NEAR_CPUS}Q",
)
HIT_KEY = _layout("hit_key", func="Q", cpu="I", unused="I")
HITS = _layout("hits", banks=f"{BANKS}Q")
MASK_CALLS = _layout("mask_calls", banks=f"{BANKS}Q")
IPIS_CONFIG = _layout("ipis_config", words="I", unused="I", isolated=f"{MASK_WORDS}Q")
IPIS = _layout("ipis", isolated="Q", others="Q")

CONTENTION_CONFIG = _layout(
    "contention_config", slab_mutex="Q", comm_offset="I", paused="I", owner_offset="I", unused="I"
)
WAIT_KEY = _layout("wait_key", lock="Q", caller="Q", stack="i", unused="I", holder="16s")
WAIT = _layout("wait", waits="Q", wait_ns="Q", max_wait_ns="Q")

CONTAINER_EVENT = _layout(
    "container_event", at_ns="Q", run="Q", kind="I", pid="I", maker="I", cut="I", comm="16s", path="192s"
)

TRACE_CONFIG = _layout("trace_config", on="I", comm_offset="I")
TRACE_EVENT = _layout(
    "trace_event",
    at_ns="Q",
    func="Q",
    csd="Q",
    kind="I",
    cpu="I",
    target="I",
    stack="i",
    flags="I",
    tid="I",
    pid="I",
    unused="I",
    comm="16s",
)
TRACE_TEXT = _layout("trace_text", event=TRACE_EVENT, text="160s")
