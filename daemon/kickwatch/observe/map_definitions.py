"""The maps of a BPF object, as its debug information describes them: the variables of the section `.maps`.

A map is a struct whose members are pointers: `int (*type)[BPF_MAP_TYPE_HASH]` has a number as the length of an array,
`struct key *key` a type, of which the size counts (bpf_helpers.h: `__uint`, `__type`). The format is BTF
(Documentation/bpf/btf.rst).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kickwatch.errors import ObserveError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _PROTO = range(1, 14)
_VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(14, 20)
# Bytes after the twelve that every type has: fixed, and for each of its items.
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_SIZED = frozenset({_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64})
_ALIASES = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_POINTER_BYTES = 8


@dataclass(frozen=True)
class MapDefinition:
    """As BPF_MAP_CREATE wants it."""

    kind: int
    key_bytes: int = 0
    value_bytes: int = 0
    entries: int = 0
    flags: int = 0


class _Type(NamedTuple):
    """One type: `to` is its size or the type that it refers to; `items` are words, three of a member or array."""

    name: str
    kind: int
    to: int
    items: tuple[int, ...]


def map_definitions(btf: bytes) -> dict[str, MapDefinition]:
    """Every map by its name. Raises ObserveError if the section `.BTF` cannot be read."""
    try:
        return dict(_Btf(btf).maps())
    except (struct.error, IndexError, ValueError) as error:
        raise ObserveError(f"no map definitions in a BPF object: {error}", "rebuild it with `make native`") from error


class _Btf:
    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, types_bytes, strings, strings_bytes = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("it has no debug information")
        self._strings = data[header + strings : header + strings + strings_bytes]
        self._types = [_Type("void", 0, 0, ()), *self._read(data[header + types : header + types + types_bytes])]

    def _read(self, data: bytes) -> Iterator[_Type]:
        at = 0
        while at < len(data):
            name, info, to = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            more = _FIXED.get(kind, 0) + _EACH.get(kind, 0) * count
            yield _Type(self._text(name), kind, to, struct.unpack_from(f"<{more // 4}I", data, at + 12))
            at += 12 + more

    def _text(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode("ascii")

    def maps(self) -> Iterator[tuple[str, MapDefinition]]:
        for section in self._types:
            if (section.kind, section.name) == (_DATASEC, ".maps"):
                for variable in section.items[::3]:
                    found = self._types[variable]
                    yield found.name, self._map(found.to)

    def _map(self, index: int) -> MapDefinition:
        items = self._types[self._resolved(index)].items
        members = {self._text(name): self._types[kind].to for name, kind in zip(items[::3], items[1::3], strict=True)}

        def number(name: str) -> int:
            return self._types[members[name]].items[2] if name in members else 0

        def size(name: str) -> int:
            return self._size(members[name]) if name in members else number(f"{name}_size")

        return MapDefinition(number("type"), size("key"), size("value"), number("max_entries"), number("map_flags"))

    def _resolved(self, index: int) -> int:
        while self._types[index].kind in _ALIASES:
            index = self._types[index].to
        return index

    def _size(self, index: int) -> int:
        found = self._types[self._resolved(index)]
        if found.kind == _ARRAY:
            return self._size(found.items[0]) * found.items[2]
        if found.kind == _PTR:
            return _POINTER_BYTES
        if found.kind not in _SIZED:
            raise ValueError(f"the type {found.name} has no size")
        return found.to
