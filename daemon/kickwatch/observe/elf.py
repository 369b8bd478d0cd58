"""The parts of an ELF object file that loading BPF programs needs (elf(5)): sections, symbols, relocations.

Only 64-bit little-endian relocatable files, as clang makes them for `-target bpf`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from kickwatch.errors import ObserveError

SYMBOL_SECTION, SYMBOL_FUNCTION = 3, 2  # STT_SECTION, STT_FUNC
_MACHINE_BPF = 247
_RELOCATABLE = 1
_SYMBOLS, _RELOCATIONS = 2, 9  # SHT_SYMTAB, SHT_REL
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")


class Section(NamedTuple):
    """One section: `kind` is sh_type, `of` is sh_info."""

    name: str
    kind: int
    link: int
    of: int
    data: bytes


class Symbol(NamedTuple):
    """One symbol: `kind` is its type, `section` an index, `value` an offset in that section, in bytes."""

    name: str
    kind: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    """A place, in bytes from the start of its section, that refers to a symbol."""

    offset: int
    kind: int
    symbol: Symbol


@dataclass(frozen=True)
class ElfObject:
    """An object file. `relocations`: by the index of the section that they change."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ObserveError if `data` is no object file of BPF programs."""
        try:
            return cls._parse(data)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise ObserveError(
                f"not an object file of BPF programs: {error}", "rebuild it with `make native`"
            ) from error

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        identity, kind, machine, *_, table, _, _, _, _, size, count, names_at = _HEADER.unpack_from(data)
        if identity[:6] != b"\x7fELF\x02\x01" or (kind, machine) != (_RELOCATABLE, _MACHINE_BPF):
            raise ValueError("it is for another machine")
        headers = [_SECTION.unpack_from(data, table + size * index) for index in range(count)]
        contents = [data[header[4] : header[4] + header[5]] for header in headers]
        sections = tuple(
            Section(_text(contents[names_at], header[0]), header[1], header[6], header[7], content)
            for header, content in zip(headers, contents, strict=True)
        )
        symbols = tuple(_symbols(sections))
        relocations = {
            section.of: tuple(
                Relocation(offset, info & 0xFFFFFFFF, symbols[info >> 32])
                for offset, info in _RELOCATION.iter_unpack(section.data)
            )
            for section in sections
            if section.kind == _RELOCATIONS
        }
        return cls(sections, symbols, relocations)

    def section(self, name: str) -> bytes:
        """The contents of a section; empty if there is none of that name."""
        return next((section.data for section in self.sections if section.name == name), b"")

    def functions(self) -> Iterator[Symbol]:
        """The symbols of functions, in the file's order."""
        return (symbol for symbol in self.symbols if symbol.kind == SYMBOL_FUNCTION)


def _symbols(sections: tuple[Section, ...]) -> Iterator[Symbol]:
    for table in sections:
        if table.kind == _SYMBOLS:
            names = sections[table.link].data
            for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data):
                yield Symbol(_text(names, name), info & 0xF, section, value, size)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode("ascii")
