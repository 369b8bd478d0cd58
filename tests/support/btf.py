"""The types that an object file was compiled with, from its section .BTF (Documentation/bpf/btf.rst)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from elf import sections

_MAGIC = 0xEB9F


class Kind(IntEnum):
    """The kinds of types that matter here."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    VAR = 14
    DATASEC = 15


# Bytes behind the common head of a type: once, and for each of its `vlen` members.
_TAIL_BYTES = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    17: (4, 0),
    19: (0, 12),  # union, enum, function prototype, tag, 64-bit enum
}
_QUALIFIERS = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT}


class Member(NamedTuple):
    """One member of a struct: its place and size in bytes. `signed` of an integer, or of an array of integers."""

    name: str
    offset: int
    size: int
    signed: bool


class Type(NamedTuple):
    """One type as it is encoded. `size` is the number of another type for kinds that refer to one."""

    name: str
    kind: int
    vlen: int
    size: int
    tail: bytes


@dataclass(frozen=True)
class Btf:
    """The types of one object."""

    contents: bytes

    @classmethod
    def of(cls, path: Path) -> "Btf":
        """Those of an object file."""
        return cls(dict(sections(path))[".BTF"])

    @cached_property
    def types(self) -> list[Type]:
        """All types; the number of a type is its index, and 0 is void."""
        magic, _, _, header, type_at, type_bytes, name_at, _ = struct.unpack_from("<HBBIIIII", self.contents)
        assert magic == _MAGIC
        found, at, end = [Type("", 0, 0, 0, b"")], header + type_at, header + type_at + type_bytes
        while at < end:
            name, info, size = struct.unpack_from("<III", self.contents, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            once, each = _TAIL_BYTES.get(kind, (0, 0))
            length = once + each * vlen
            found.append(Type(self._name(header + name_at + name), kind, vlen, size, self.contents[at + 12 :][:length]))
            at += 12 + length
        return found

    def structs(self) -> dict[str, Type]:
        """All structs that have a name."""
        return {one.name: one for one in self.types if one.kind == Kind.STRUCT and one.name}

    def members(self, name: str) -> list[Member]:
        """Members of the struct `name`, in order."""
        return [
            Member(self._name_of(at), bits // 8, self._size(number), self._signed(number))
            for at, number, bits in struct.iter_unpack("<III", self.structs()[name].tail)
        ]

    def maps(self) -> dict[str, tuple[str, str]]:
        """Each map with the names of the types of its keys and values; empty if the map does not declare them."""
        section = next(one for one in self.types if one.kind == Kind.DATASEC and one.name == ".maps")
        variables = [self.types[number] for number, _, _ in struct.iter_unpack("<III", section.tail)]
        return {variable.name: self._key_and_value(variable.size) for variable in variables}

    def _key_and_value(self, number: int) -> tuple[str, str]:
        declared = {
            self._name_of(at): self.types[self._plain(member)]
            for at, member, _ in struct.iter_unpack("<III", self.types[number].tail)
        }
        pointed = {name: one.size for name, one in declared.items() if one.kind == Kind.PTR}
        key, value = (self.types[self._plain(pointed.get(role, 0))].name for role in ("key", "value"))
        return key, value

    def _name_of(self, at: int) -> str:
        header, _, _, name_at = struct.unpack_from("<IIII", self.contents, 4)
        return self._name(header + name_at + at)

    def _name(self, at: int) -> str:
        return self.contents[at : self.contents.index(b"\0", at)].decode()

    def _plain(self, number: int) -> int:
        while self.types[number].kind in _QUALIFIERS:
            number = self.types[number].size
        return number

    def _size(self, number: int) -> int:
        one = self.types[self._plain(number)]
        if one.kind == Kind.ARRAY:
            element, _index, count = struct.unpack("<III", one.tail)
            return count * self._size(element)
        return 8 if one.kind == Kind.PTR else one.size

    def _signed(self, number: int) -> bool:
        one = self.types[self._plain(number)]
        if one.kind == Kind.ARRAY:
            return self._signed(struct.unpack("<III", one.tail)[0])
        return one.kind == Kind.INT and bool(struct.unpack("<I", one.tail)[0] >> 24 & 1)
