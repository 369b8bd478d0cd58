"""The limits of old kernels' verifiers, as far as they can be checked in the objects."""

import struct
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from elf import functions, sections
from kickwatch.observe.bpf import PROBES

OBJECTS = sorted(PROBES.glob("*.bpf.o"))
MOST_INSTRUCTIONS = (
    4096  # BPF_MAXINSNS, the limit before "bpf: increase complexity limit and maximum program size" (5.2)
)
INSTRUCTION_BYTES = 8
_JUMPS, _JUMPS_32, _GOTO, _CALL, _EXIT, _LOAD_64 = 0x05, 0x06, 0x05, 0x85, 0x95, 0x18
_OWN_FUNCTION = 1  # BPF_PSEUDO_CALL
_NEWEST_HELPER = 67  # bpf_get_stack, 4.18
_RING_HELPERS = frozenset(
    {131, 132}
)  # bpf_ringbuf_reserve, bpf_ringbuf_submit, 5.8; trace.bpf.c and its variant alone, for 6.5
_RING_PROBES = frozenset({"trace.bpf.o", "trace_noread.bpf.o"})
_NEWEST_PROBES = frozenset({"csd.bpf.o", "csd_members.bpf.o", "csd_noread.bpf.o", *_RING_PROBES})
_READS = frozenset({4, 45})  # bpf_probe_read, bpf_probe_read_str


def programs(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    for section, name, contents in functions(path):
        if section.startswith(("raw_tp/", "kprobe", "kretprobe", ".text")):
            yield name, [contents[at : at + 8] for at in range(0, len(contents), INSTRUCTION_BYTES)]


def successors(code: list[bytes]) -> dict[int, list[int]]:
    """The possible successors of each instruction of a function."""
    following: dict[int, list[int]] = {}
    at = 0
    while at < len(code):
        opcode, _registers, offset, _immediate = struct.unpack("<BBhi", code[at])
        length = 2 if opcode == _LOAD_64 else 1
        jumps = opcode & 0x07 == _JUMPS and opcode not in (_CALL, _EXIT)
        following[at] = [at + 1 + offset] if jumps else []
        if opcode not in (_EXIT, _GOTO):
            following[at].append(at + length)
        at += length
    return following


def has_cycle(following: dict[int, list[int]]) -> bool:
    """Kahn's algorithm: remove nodes without predecessors one by one; what cannot be removed contains a cycle."""
    entered = Counter(chain.from_iterable(following.values()))
    free = [at for at in following if not entered[at]]
    taken = 0
    while free:
        taken += 1
        for later in following[free.pop()]:
            entered[later] -= 1
            if not entered[later]:
                free.append(later)
    return taken < len(following)


def test_loops_are_found() -> None:
    assert has_cycle({0: [1], 1: [2], 2: [1, 3], 3: []})
    assert not has_cycle({0: [3], 1: [2], 2: [], 3: [1]})  # a jump back alone is not a loop


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_programs_are_short_and_have_neither_loops_nor_new_helpers(path: Path) -> None:
    """Only the probes for the newest kernels (6.5 and later) have functions that are not inlined."""
    found = list(programs(path))
    assert found
    for name, code in found:
        assert len(code) < MOST_INSTRUCTIONS, name
        assert not has_cycle(successors(code)), name
        for opcode, registers, _offset, immediate in (struct.unpack("<BBhi", instruction) for instruction in code):
            assert opcode & 0x07 != _JUMPS_32, f"{name}: 32-bit jumps came with 5.1"
            if opcode == _CALL:
                if registers >> 4 == _OWN_FUNCTION:
                    assert path.name in _NEWEST_PROBES, f"{name}: a function that is not inlined"
                    continue
                known = 0 < immediate <= _NEWEST_HELPER or (path.name in _RING_PROBES and immediate in _RING_HELPERS)
                assert known, f"{name}: helper {immediate}"


def reads_of(path: Path) -> int:
    """Calls that read kernel memory."""
    calls = (struct.unpack("<BBhi", one) for _, code in programs(path) for one in code)
    return sum(opcode == _CALL and not registers >> 4 and number in _READS for opcode, registers, _, number in calls)


@pytest.mark.parametrize("path", sorted(PROBES.glob("*_noread.bpf.o")), ids=lambda path: path.name)
def test_lockdown_finds_no_read_of_kernel_memory_in_a_variant(path: Path) -> None:
    assert reads_of(path) == 0
    assert reads_of(path.with_name(path.name.replace("_noread", ""))) > 0


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_objects_have_no_global_data(path: Path) -> None:
    held = {name for name, contents in sections(path) if contents}
    assert not [name for name in held if name.startswith((".data", ".bss", ".rodata"))]
