"""BPF objects through libbpf: open, resize maps, load, attach, read maps. The node needs no compiler and no binding.

Every call that can fail raises ObserveError with libbpf's latest warnings: only they name what the kernel refused.
"""

import ctypes
import errno
import os
from collections.abc import Container, Iterator
from pathlib import Path

from kickwatch.errors import ObserveError
from kickwatch.observe.libbpf import library, refused

PROBES = Path(__file__).parent / "probes"
_PERCPU_TYPES = frozenset({5, 6})  # BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY (uapi linux/bpf.h)
# struct bpf_prog_info (uapi linux/bpf.h): offsets of run_time_ns, run_cnt (5.1) and recursion_misses (5.12).
_PROG_INFO_BYTES = 232
_PROG_INFO_RUN_TIME_NS = 192


class BpfMap:
    """One map of a loaded object. Keys and values are bytes; a per-CPU value is the values of all CPUs in a row.

    A missing entry (ENOENT) is a result. Any other failure raises ObserveError with the map and the errno.
    """

    def __init__(self, pointer: int, name: str) -> None:
        lib = library()
        self.name = name
        self._lib = lib.lib
        self._fd = lib.lib.bpf_map__fd(pointer)
        self.key_bytes = lib.lib.bpf_map__key_size(pointer)
        width = lib.lib.bpf_map__value_size(pointer)
        if lib.lib.bpf_map__type(pointer) in _PERCPU_TYPES:
            width = -(-width // 8) * 8 * lib.possible_cpus  # the kernel pads per-CPU values to 8 bytes
        self.value_bytes = width
        self._value = ctypes.create_string_buffer(width)

    def get(self, key: bytes) -> bytes | None:
        """The value; None if the map has no such key. Raises ObserveError when it cannot be read."""
        if self._missing("lookup", self._lib.bpf_map_lookup_elem(self._fd, key, self._value)):
            return None
        return self._value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Write one entry, which may exist already. Raises ObserveError."""
        result = self._lib.bpf_map_update_elem(self._fd, key, value, 0)
        if result != 0:
            raise refused(f"BPF map {self.name}: update", -result)

    def delete(self, key: bytes) -> None:
        """Remove one entry; a missing one is not an error. Raises ObserveError when it cannot be removed."""
        self._missing("delete", self._lib.bpf_map_delete_elem(self._fd, key))

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
        while not self._missing("next key", self._lib.bpf_map_get_next_key(self._fd, previous, following)):
            yield following.raw
            key.raw = following.raw
            previous = key

    def _missing(self, call: str, result: int) -> bool:
        """True if the call failed since there is no such entry; libbpf 1.0 returns the errno, negated."""
        if result in (0, -errno.ENOENT):
            return result != 0
        raise refused(f"BPF map {self.name}: {call}", -result)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries."""
        for key in self.keys():
            value = self.get(key)
            if value is not None:
                yield key, value


class BpfObject:
    """One object file: loaded at construction, attached on request, freed by close()."""

    def __init__(self, name: str, max_entries: dict[str, int] | None = None, directory: Path = PROBES) -> None:
        """`name`: of the probe's source, without `.bpf.c`. `max_entries`: map sizes to set before loading."""
        self.name = name
        self._lib = library()
        self._links: list[int] = []
        path = directory / f"{name}.bpf.o"
        if not path.exists():
            raise ObserveError(f"{path} is missing", "build it with `make native`")
        self._object = self._lib.lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise ObserveError(f"{path} cannot be opened", self._lib.take_warnings())
        for map_name, entries in (max_entries or {}).items():
            self._lib.lib.bpf_map__set_max_entries(self._map_pointer(map_name), entries)
        if self._lib.lib.bpf_object__load(self._object) != 0:
            reason = os.strerror(ctypes.get_errno())
            self._lib.lib.bpf_object__close(self._object)
            raise ObserveError(f"the kernel refused the probe {name} ({reason})", self._lib.take_warnings())

    def attach_raw_tracepoint(self, program: str, tracepoint: str) -> None:
        """Attach one program. Arming a tracepoint patches kernel text, and that broadcasts."""
        link = self._lib.lib.bpf_program__attach_raw_tracepoint(self._program(program), tracepoint.encode())
        if not link:
            reason = os.strerror(ctypes.get_errno())
            raise ObserveError(f"cannot attach to tracepoint {tracepoint} ({reason})", self._lib.take_warnings())
        self._links.append(link)

    def attach_kprobe(self, program: str, function: str, *, at_return: bool = False) -> None:
        """Attach one program to the entry or the return of a kernel function, named as in kallsyms."""
        link = self._lib.lib.bpf_program__attach_kprobe(self._program(program), at_return, function.encode())
        if not link:
            reason = os.strerror(ctypes.get_errno())
            raise ObserveError(f"cannot attach a kprobe to {function} ({reason})", self._lib.take_warnings())
        self._links.append(link)

    def detach(self) -> None:
        """Detach every program; the maps stay readable."""
        while self._links:
            self._lib.lib.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach, and free the maps and programs. Safe to call twice."""
        self.detach()
        if self._object:
            self._lib.lib.bpf_object__close(self._object)
            self._object = None

    def map(self, name: str) -> BpfMap:
        """A map by its name in the C source."""
        return BpfMap(self._map_pointer(name), name)

    def run_statistics(self, program: str) -> tuple[int, int, int]:
        """(run_time_ns, runs, recursion_misses) of a program; the first two rise only while BPF statistics are on.

        The last is 0 before 5.12. Raises ObserveError if the kernel refuses.
        """
        info = ctypes.create_string_buffer(_PROG_INFO_BYTES)
        length = ctypes.c_uint32(_PROG_INFO_BYTES)
        fd = self._lib.lib.bpf_program__fd(self._program(program))
        result = self._lib.lib.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(length))
        if result != 0:
            raise refused(f"BPF program {program}: its statistics", -result)
        words = (ctypes.c_uint64 * 3).from_buffer(info, _PROG_INFO_RUN_TIME_NS)
        return (words[0], words[1], words[2])

    def _opened(self) -> int:
        """The open object. libbpf does not check for a null pointer: it would crash the process."""
        if not self._object:
            raise ObserveError(f"the probe {self.name} is closed", "report it")
        return int(self._object)

    def _program(self, name: str) -> int:
        pointer = self._lib.lib.bpf_object__find_program_by_name(self._opened(), name.encode())
        if not pointer:
            raise ObserveError(f"the probe {self.name} has no program {name}", "rebuild it with `make native`")
        return int(pointer)

    def _map_pointer(self, name: str) -> int:
        pointer = self._lib.lib.bpf_object__find_map_by_name(self._opened(), name.encode())
        if not pointer:
            raise ObserveError(f"the probe {self.name} has no map {name}", "rebuild it with `make native`")
        return int(pointer)


def enable_statistics() -> int:
    """Turn BPF run-time statistics on; closing the descriptor turns them off. Both flip a static key (broadcasts)."""
    fd = int(library().lib.bpf_enable_stats(0))
    if fd < 0:
        what = f"cannot enable BPF run-time statistics ({os.strerror(ctypes.get_errno())})"
        raise ObserveError(what, "needs Linux 5.8 or later, and root")
    return fd
