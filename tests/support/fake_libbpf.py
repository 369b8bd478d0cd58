"""A fake libbpf: its maps are dictionaries, and a test can make calls fail with an errno."""

import ctypes
import errno
import struct
from types import SimpleNamespace
from typing import Any

from kickwatch.node.kernel import possible
from kickwatch.observe.bpf import BpfMap, BpfObject
from kickwatch.observe.layouts import CSD_CONFIG, THIS_CPU

_HASH, _PERCPU_ARRAY = 1, 6
Map = dict[bytes, bytes]


def array(entries: int, value_bytes: int = 8) -> Map:
    """An array has all its entries from the start."""
    return {struct.pack("=I", index): bytes(value_bytes) for index in range(entries)}


class FakeLibbpf:
    """Maps as probes have them before any event is counted. `refusals`: the errno of each call that fails, by name.

    As in libbpf 1.0, a failed call returns its negated errno.
    """

    possible_cpus = 1
    arrays = frozenset({"health", "histogram"})  # per-CPU ones
    key_bytes = {"cells": 16, "waits": 32, "certain_funcs": 8, "hits": 16}  # noqa: RUF012 -- never written

    def __init__(self) -> None:
        self.maps: dict[str, Map] = {
            "config": array(1, CSD_CONFIG.size),
            "health": array(4),
            "histogram": array(40),
            "each_cpu": array(max(possible()) + 1, THIS_CPU.size),
        }
        self.refusals: dict[str, int] = {}
        self.calls: list[str] = []
        self._names: list[str] = [""]  # a map's pointer is its index here
        self.lib: Any = SimpleNamespace(
            bpf_map__fd=lambda pointer: pointer,
            bpf_map__key_size=lambda pointer: self.key_bytes.get(self._names[pointer], 4),
            bpf_map__value_size=lambda pointer: len(next(iter(self._map(pointer).values()), bytes(8))),
            bpf_map__type=lambda pointer: _PERCPU_ARRAY if self._names[pointer] in self.arrays else _HASH,
            bpf_object__find_map_by_name=lambda _, name: self.pointer(name.decode()),
            bpf_object__find_program_by_name=lambda _, __: 1,
            bpf_program__fd=lambda _: 4,
            bpf_map_lookup_elem=lambda fd, key, value: self._answer("lookup", self._copy, fd, key, value),
            bpf_map_lookup_batch=lambda *_: self._answer("batch", lambda: -errno.EINVAL),  # an older kernel
            bpf_map_update_elem=lambda fd, key, value, _: self._answer("update", self._store, fd, key, value),
            bpf_map_delete_elem=lambda fd, key: self._answer("delete", self._delete, fd, key),
            bpf_map_get_next_key=lambda fd, key, following: self._answer("next", self._next, fd, key, following),
            bpf_obj_get_info_by_fd=lambda *_: self._answer("info", lambda: 0),
        )

    def pointer(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1

    def map(self, name: str) -> BpfMap:
        return BpfMap(self.pointer(name), name)

    def probe(self, name: str = "csd") -> BpfObject:
        """A loaded object that has no file."""
        made = object.__new__(BpfObject)
        made.name, made._lib, made._links, made._object = name, self, [], 1  # type: ignore[assignment]
        made._maps = {}
        return made

    def _map(self, pointer: int) -> Map:
        return self.maps.setdefault(self._names[pointer], {})

    def _answer(self, call: str, work: Any, *arguments: Any) -> int:
        self.calls.append(call)
        result: int = -self.refusals[call] if call in self.refusals else work(*arguments)
        return result

    def _copy(self, fd: int, key: bytes, value: "ctypes.Array[ctypes.c_char]") -> int:
        if key not in self._map(fd):
            return -errno.ENOENT
        value.raw = self._map(fd)[key].ljust(len(value), b"\0")
        return 0

    def _store(self, fd: int, key: bytes, value: bytes) -> int:
        self._map(fd)[key] = value
        return 0

    def _delete(self, fd: int, key: bytes) -> int:
        return 0 if self._map(fd).pop(key, None) is not None else -errno.ENOENT

    def _next(self, fd: int, key: Any, following: "ctypes.Array[ctypes.c_char]") -> int:
        keys = list(self._map(fd))
        at = keys.index(key.raw) + 1 if key is not None and key.raw in keys else 0
        if at >= len(keys):
            return -errno.ENOENT
        following.raw = keys[at]
        return 0
