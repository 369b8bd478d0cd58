"""The sections and functions of an ELF file."""

import struct
from collections.abc import Iterator
from pathlib import Path

_NO_CONTENTS = 8  # SHT_NOBITS
_FUNCTION = 2  # STT_FUNC


def sections(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, contents) of each section of a 64-bit little-endian ELF file (elf(5))."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + size * index) for index in range(count)]
    names = headers[names_at]
    for name, kind, _flags, _address, offset, length in headers:
        start = names[4] + name
        title = data[start : data.index(b"\0", start)].decode()
        yield title, b"" if kind == _NO_CONTENTS else data[offset : offset + length]


def functions(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(section, name, contents) of each function in the symbol table."""
    found = list(sections(path))
    symbols, names = dict(found)[".symtab"], dict(found)[".strtab"]
    for name, info, _other, section, value, size in struct.iter_unpack("<IBBHQQ", symbols):
        if info & 0xF == _FUNCTION:
            title = names[name : names.index(b"\0", name)].decode()
            yield found[section][0], title, found[section][1][value : value + size]
