"""Stands in for a loaded BPF object where only its maps are written and read."""

from typing import cast

from kickwatch.observe.bpf import BpfMap


class FakeMap:
    """A map that holds stacks, and keeps what is written."""

    def __init__(self, entries: dict[bytes, bytes] | None = None) -> None:
        """`entries` by key."""
        self.entries = entries or {}

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value


class FakeProbe:
    """Stands in for the loaded probe."""

    def __init__(self) -> None:
        self.maps: dict[str, FakeMap] = {}

    def map(self, name: str) -> BpfMap:
        return cast("BpfMap", self.maps.setdefault(name, FakeMap()))
