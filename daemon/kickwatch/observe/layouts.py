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

    def pack(self, *values: Any) -> bytes:
        """The members' values, arrays element by element, as the programs read them."""
        return self.packed.pack(*values)


def _layout(name: str, **members: "str | Layout") -> Layout:
    formats = {key: member if isinstance(member, str) else f"{member.size}s" for key, member in members.items()}
    return Layout(name, formats, struct.Struct("=" + "".join(formats.values())))


BUSY_FUNCS_MOST = 4  # BUSY_FUNCS of cells.h
MANY_RANGES = 4  # of csd.bpf.c
MASK_WORDS = 16  # of calls.h
MAX_FRAMES = 48  # of probe.h
HISTOGRAM_BUCKETS = 40  # of waits.h

CELLS_CONFIG = _layout("cells_config", busy=f"{BUSY_FUNCS_MOST}Q", paused="I", broadcast_targets="I", slab_mutex="Q")
CSD_CONFIG = _layout("csd_config", cells=CELLS_CONFIG, many_start=f"{MANY_RANGES}Q", many_end=f"{MANY_RANGES}Q")
CALLS_CONFIG = _layout("calls_config", cells=CELLS_CONFIG, words="I", has="I", online=f"{MASK_WORDS}Q")
CELL_KEY = _layout("cell_key", func="Q", stack="i", flags="I")
CELL = _layout("cell", requests="Q", calls="Q", broadcasts="Q")
EXAMPLE = _layout("example", stack_plus_one="i")

CONTENTION_CONFIG = _layout("contention_config", slab_mutex="Q", comm_offset="I", paused="I")
WAIT_KEY = _layout("wait_key", lock="Q", stack="i", unused="I", holder="16s")
WAIT = _layout("wait", waits="Q", wait_ns="Q", max_wait_ns="Q")
