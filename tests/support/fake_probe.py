"""A fake of a loaded BPF object, for code that only reads and writes its maps."""

from typing import cast

from kickwatch.observe.bpf import BpfMap


class FakeMap:
    """A map in memory."""

    def __init__(self, entries: dict[bytes, bytes] | None = None) -> None:
        """`entries`: the map's initial values by key."""
        self.entries = entries or {}

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value


class FakeProbe:
    """A fake of the loaded probe."""

    def __init__(self) -> None:
        self.maps: dict[str, FakeMap] = {}

    def map(self, name: str) -> BpfMap:
        return cast("BpfMap", self.maps.setdefault(name, FakeMap()))
