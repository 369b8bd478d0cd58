"""BPF maps: read one entry or all of them, write, clear. Entries come in batches where the kernel has these."""

import ctypes
import errno
import struct
from collections.abc import Container, Iterator

from kickwatch.errors import ObserveError
from kickwatch.node.kernel import possible
from kickwatch.observe.bpf_calls import KERNEL, BpfCalls
from kickwatch.observe.map_definitions import MapDefinition
from kickwatch.observe.refused import refused

_PERCPU_TYPES = frozenset({5, 6})  # BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY (uapi linux/bpf.h)
_BATCH_BYTES, _WORD_BYTES = 1 << 18, 8
# Before "bpf: Add generic support for lookup batch op" (5.6), and for per-CPU arrays before "bpf: Add batched ops
# support for percpu array" (5.13; ENOTSUPP, which has no name in user space). ENOSPC: more entries in one bucket of a
# hash than were asked for.
_NO_BATCH = frozenset({-errno.EINVAL, -errno.EOPNOTSUPP, -524, -errno.ENOSPC})


class BpfMap:
    """One map of a loaded object. Keys and values are bytes; a per-CPU value is the values of all CPUs in a row.

    A missing entry (ENOENT) is a result. Any other failure raises ObserveError with the map and the errno.
    """

    def __init__(self, name: str, fd: int, definition: MapDefinition, calls: BpfCalls = KERNEL) -> None:
        self.name = name
        self._calls = calls
        self._fd = fd
        self.max_entries = definition.entries
        self.key_bytes = definition.key_bytes
        width = definition.value_bytes
        if definition.kind in _PERCPU_TYPES:
            width = -(-width // 8) * 8 * len(possible())  # the kernel pads per-CPU values to 8 bytes
        self.value_bytes = width
        self._batched = True  # until the kernel turns out to have no such command

    @property
    def fd(self) -> int:
        """The file descriptor; valid until the object is closed."""
        return self._fd

    def get(self, key: bytes) -> bytes | None:
        """The value; None if the map has no such key. Raises ObserveError when it cannot be read."""
        value = ctypes.create_string_buffer(self.value_bytes)  # of this call alone: two threads may read one map
        if self._missing("lookup", self._calls.lookup(self._fd, key, value)):
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Write one entry, which may exist already. Raises ObserveError."""
        result = self._calls.update(self._fd, key, value)
        if result != 0:
            raise refused(f"BPF map {self.name}: update", -result)

    def delete(self, key: bytes) -> None:
        """Remove one entry; a missing one is not an error. Raises ObserveError when it cannot be removed."""
        self._missing("delete", self._calls.delete(self._fd, key))

    def clear(self, keep: Container[bytes] = ()) -> None:
        """Remove every entry except those with a key in `keep`. Raises ObserveError."""
        for key in list(self.keys()):
            if key not in keep:
                self.delete(key)

    def keys(self) -> Iterator[bytes]:
        """All keys. Entries inserted meanwhile may be missing; none appears twice while nothing is deleted.

        Raises ObserveError if they cannot be read to the end.
        """
        key = ctypes.create_string_buffer(self.key_bytes)
        following = ctypes.create_string_buffer(self.key_bytes)
        previous: ctypes.Array[ctypes.c_char] | None = None
        while not self._missing("next key", self._calls.next_key(self._fd, previous, following)):
            yield following.raw
            key.raw = following.raw
            previous = key

    def _missing(self, call: str, result: int) -> bool:
        """True if the call failed since there is no such entry."""
        if result in (0, -errno.ENOENT):
            return result != 0
        raise refused(f"BPF map {self.name}: {call}", -result)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, each as it is when it is read. Raises ObserveError if they cannot be read to the end."""
        found = self._batches() if self._batched else None
        if found is not None:
            yield from found
            return
        for key in self.keys():
            value = self.get(key)
            if value is not None:
                yield key, value

    def entries(self, indices: range) -> list[bytes]:
        """Consecutive entries of an array, which has all of them from the start. Raises ObserveError."""
        before = struct.pack("=I", indices.start - 1) if indices.start else None
        found = self._batches(before, len(indices)) if self._batched else None
        if found is not None and len(found) == len(indices):
            return [value for _, value in found]
        values = {index: self.get(struct.pack("=I", index)) for index in indices}
        missing = [index for index, value in values.items() if value is None]
        if missing:
            what = f"BPF map {self.name} has no entry {missing[0]}"
            raise ObserveError(what, "rebuild the probes with `make native`")
        return [value for value in values.values() if value is not None]

    def _batches(self, token: bytes | None = None, wanted: int | None = None) -> list[tuple[bytes, bytes]] | None:
        """All entries, or `wanted` ones after the key `token`, with few system calls; None where that is not possible.

        The first token of an array is a key, any other is what the kernel returned with the batch before.
        """
        room = max(16, _BATCH_BYTES // (self.key_bytes + self.value_bytes))
        room = room if wanted is None else min(room, wanted)
        keys = ctypes.create_string_buffer(room * self.key_bytes)
        values = ctypes.create_string_buffer(room * self.value_bytes)
        found: list[tuple[bytes, bytes]] = []
        following = ctypes.create_string_buffer(max(self.key_bytes, _WORD_BYTES))
        while wanted is None or len(found) < wanted:
            count = ctypes.c_uint32(room if wanted is None else min(room, wanted - len(found)))
            result = self._calls.lookup_batch(
                self._fd, token, following=following, keys=keys, values=values, count=count
            )
            if result in _NO_BATCH:
                self._batched = result == -errno.ENOSPC
                return None
            ended = self._missing("lookup batch", result)
            read = (_split(keys, self.key_bytes, count.value), _split(values, self.value_bytes, count.value))
            found += zip(*read, strict=True)
            if ended:
                break
            token = following.raw
        return found


def _split(buffer: "ctypes.Array[ctypes.c_char]", width: int, count: int) -> list[bytes]:
    """The first `count` items of a buffer."""
    whole = memoryview(buffer)[: count * width].tobytes()
    return [whole[at : at + width] for at in range(0, len(whole), width)]
