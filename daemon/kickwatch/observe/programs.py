"""BPF programs of an object file, made ready to load: their functions put together, their maps' places listed.

A program is a function in a section that names its kind (`SEC("kprobe")`). The functions that it calls are appended,
and the calls directed to them, since the kernel loads one piece of code for each program.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kickwatch.errors import ObserveError
from kickwatch.observe.elf import ElfObject, Relocation, Symbol

_BYTES = 8  # of an instruction: opcode, registers, offset (16 bits), immediate (32 bits)
_CALL = 0x85
_PSEUDO_MAP, _PSEUDO_CALL = 1, 1  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_CALL: the source register of a special instruction
_MAP, _FUNCTION = 1, 10  # R_BPF_64_64, R_BPF_64_32
_KINDS = {"kprobe": 2, "kretprobe": 2, "raw_tp": 17}  # BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_RAW_TRACEPOINT


@dataclass(frozen=True)
class Program:
    """`kind`: enum bpf_prog_type. `maps`: the instructions, by index, that take a map's descriptor, and its name."""

    name: str
    kind: int
    code: bytes
    maps: tuple[tuple[int, str], ...]

    def with_maps(self, descriptors: Mapping[str, int]) -> bytes:
        """The code for maps that have been created."""
        code = bytearray(self.code)
        for index, name in self.maps:
            struct.pack_into("<i", code, index * _BYTES + 4, descriptors[name])
        return bytes(code)


def programs(elf: ElfObject) -> Iterator[Program]:
    """All programs. Raises ObserveError for something that kickwatch's probes do not use, as global variables."""
    for function in elf.functions():
        kind = _KINDS.get(elf.sections[function.section].name.partition("/")[0])
        if kind is not None:
            linker = _Linker(elf)
            linker.add(function)
            yield Program(function.name, kind, bytes(linker.code), tuple(linker.maps))


@dataclass
class _Linker:
    """Puts together one program."""

    elf: ElfObject
    code: bytearray = field(default_factory=bytearray)
    maps: list[tuple[int, str]] = field(default_factory=list)
    _starts: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, function: Symbol) -> int:
        """Append a function and what it calls, unless it is there; returns the index of its first instruction."""
        key = (function.section, function.value)
        if key not in self._starts:
            start = self._starts[key] = len(self.code) // _BYTES
            end = function.value + function.size
            self.code += self.elf.sections[function.section].data[function.value : end]
            places = {found.offset: found for found in self.elf.relocations.get(function.section, ())}
            for offset in range(function.value, end, _BYTES):
                self._link(function, offset, start + (offset - function.value) // _BYTES, places.get(offset))
        return self._starts[key]

    def _link(self, function: Symbol, offset: int, index: int, place: Relocation | None) -> None:
        """Direct one instruction to its map or function."""
        opcode, registers, _, immediate = struct.unpack_from("<BBhi", self.code, index * _BYTES)
        if opcode == _CALL and registers >> 4 == _PSEUDO_CALL:
            if place is None:
                section, target = function.section, offset + (immediate + 1) * _BYTES
            else:
                section, target = place.symbol.section, place.symbol.value + (immediate + 1) * _BYTES
            start = self.add(self._function_at(section, target))
            struct.pack_into("<i", self.code, index * _BYTES + 4, start - index - 1)
        elif place is not None:
            self._link_map(index, registers, place)

    def _link_map(self, index: int, registers: int, place: Relocation) -> None:
        if place.kind != _MAP or self.elf.sections[place.symbol.section].name != ".maps":
            what = f"a BPF program refers to {place.symbol.name or 'data'}, which is no map"
            raise ObserveError(what, "rebuild it with `make native`, without global variables")
        struct.pack_into("<B", self.code, index * _BYTES + 1, registers & 0xF | _PSEUDO_MAP << 4)
        self.maps.append((index, place.symbol.name))

    def _function_at(self, section: int, offset: int) -> Symbol:
        for symbol in self.elf.functions():
            if (symbol.section, symbol.value) == (section, offset):
                return symbol
        raise ObserveError("a BPF program calls something that is no function", "rebuild it with `make native`")
