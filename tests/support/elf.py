"""The sections of an ELF file."""

import struct
from collections.abc import Iterator
from pathlib import Path

_NO_CONTENTS = 8  # SHT_NOBITS


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
