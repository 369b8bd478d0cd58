"""A fake of the kernel's BPF commands: its maps are dictionaries, and a test can make calls fail with an errno."""

import errno
import struct
from typing import Any

from kickwatch.node.kernel import possible
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_calls import BpfCalls, Buffer
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.layouts import CSD_CONFIG, THIS_CPU
from kickwatch.observe.map_definitions import MapDefinition

_HASH, _PERCPU_ARRAY = 1, 6
Map = dict[bytes, bytes]


def array(entries: int, value_bytes: int = 8) -> Map:
    """An array has all its entries from the start."""
    return {struct.pack("=I", index): bytes(value_bytes) for index in range(entries)}


class _Maps(dict[str, BpfMap]):
    """The maps of a probe, each made at its first use."""

    def __init__(self, fake: "FakeBpf") -> None:
        super().__init__()
        self.fake = fake

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> BpfMap:
        self[name] = self.fake.map(name)
        return self[name]


class FakeBpf(BpfCalls):
    """Maps as probes have them before any event is counted. `refusals`: the errno of each call that fails, by name."""

    arrays = frozenset({"health", "histogram"})  # per-CPU ones
    key_bytes = {"cells": 24, "waits": 40, "certain_funcs": 8, "hits": 16}  # noqa: RUF012 -- never written

    def __init__(self) -> None:
        self.maps: dict[str, Map] = {
            "config": array(1, CSD_CONFIG.size),
            "health": array(4),
            "histogram": array(40),
            "each_cpu": array(max(possible()) + 1, THIS_CPU.size),
        }
        self.refusals: dict[str, int] = {}
        self.calls: list[str] = []
        self._names: list[str] = [""]  # a map's descriptor is its index here

    def map(self, name: str) -> BpfMap:
        self._names.append(name)
        kind = _PERCPU_ARRAY if name in self.arrays else _HASH
        width = len(next(iter(self.maps.get(name, {}).values()), bytes(8)))
        definition = MapDefinition(kind, self.key_bytes.get(name, 4), width)
        return BpfMap(name, len(self._names) - 1, definition, self)

    def probe(self, name: str = "csd") -> BpfObject:
        """A loaded object that has no file."""
        made = object.__new__(BpfObject)
        made.name, made._calls, made._links, made._closed = name, self, [], False
        made._maps, made._programs = _Maps(self), _Programs()
        return made

    def lookup(self, fd: int, key: bytes, value: Buffer) -> int:
        return self._answer("lookup", self._copy, fd, key, value)

    def lookup_batch(self, *_: Any, **__: Any) -> int:
        return self._answer("batch", lambda: -errno.EINVAL)  # an older kernel

    def update(self, fd: int, key: bytes, value: bytes) -> int:
        return self._answer("update", self._store, fd, key, value)

    def delete(self, fd: int, key: bytes) -> int:
        return self._answer("delete", self._delete, fd, key)

    def next_key(self, fd: int, key: Buffer | None, following: Buffer) -> int:
        return self._answer("next", self._next, fd, key, following)

    def program_info(self, *_: Any) -> int:
        return self._answer("info", lambda: 0)

    def _map(self, fd: int) -> Map:
        return self.maps.setdefault(self._names[fd], {})

    def _answer(self, call: str, work: Any, *arguments: Any) -> int:
        self.calls.append(call)
        result: int = -self.refusals[call] if call in self.refusals else work(*arguments)
        return result

    def _copy(self, fd: int, key: bytes, value: Buffer) -> int:
        if key not in self._map(fd):
            return -errno.ENOENT
        value.raw = self._map(fd)[key].ljust(len(value), b"\0")
        return 0

    def _store(self, fd: int, key: bytes, value: bytes) -> int:
        self._map(fd)[key] = value
        return 0

    def _delete(self, fd: int, key: bytes) -> int:
        return 0 if self._map(fd).pop(key, None) is not None else -errno.ENOENT

    def _next(self, fd: int, key: Any, following: Buffer) -> int:
        keys = list(self._map(fd))
        at = keys.index(key.raw) + 1 if key is not None and key.raw in keys else 0
        if at >= len(keys):
            return -errno.ENOENT
        following.raw = keys[at]
        return 0


class _Programs(dict[str, int]):
    """Every program has a descriptor."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        return 4
