"""A fake of a loaded BPF object, for code that only reads and writes its maps."""

import struct
from collections.abc import Container, Iterator
from typing import cast

from kickwatch.observe.bpf_map import BpfMap


class FakeMap:
    """A map in memory."""

    def __init__(self, entries: dict[bytes, bytes] | None = None) -> None:
        """`entries`: the map's initial values by key."""
        self._values = entries or {}

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._values[key] = value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._values.items()

    def keys(self) -> Iterator[bytes]:
        yield from self._values

    def clear(self, keep: Container[bytes] = ()) -> None:
        self._values = {key: value for key, value in self._values.items() if key in keep}

    def entries(self, indices: range) -> list[bytes]:
        return [self._values[struct.pack("=I", index)] for index in indices]

    @property
    def value_bytes(self) -> int:
        return len(next(iter(self._values.values())))


class FakeProbe:
    """A fake of the loaded probe."""

    unread = None  # it may read the kernel's memory

    def __init__(self) -> None:
        self.maps: dict[str, FakeMap] = {}

    def map(self, name: str) -> BpfMap:
        return cast("BpfMap", self.maps.setdefault(name, FakeMap()))
