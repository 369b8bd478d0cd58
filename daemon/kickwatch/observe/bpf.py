"""BPF objects through libbpf and ctypes: open, size, load, attach, read maps. No compiler and no binding on the node.

Every call that can fail raises ObserveError with libbpf's own last words, since only they say what the kernel refused.
"""

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Container, Iterator
from pathlib import Path

from kickwatch.errors import ObserveError

PROBES = Path(__file__).parent / "probes"
_PRINT_WARN = 0
_PrintFn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "bpf_object__open_file": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_void_p]),
    "bpf_object__load": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_object__close": (None, [ctypes.c_void_p]),
    "bpf_object__find_program_by_name": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "bpf_object__find_map_by_name": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "bpf_program__attach_raw_tracepoint": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "bpf_program__attach_kprobe": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_bool, ctypes.c_char_p]),
    "bpf_program__fd": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_link__destroy": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_map__fd": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_map__key_size": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__value_size": (ctypes.c_uint32, [ctypes.c_void_p]),
    "bpf_map__type": (ctypes.c_int, [ctypes.c_void_p]),
    "bpf_map__set_max_entries": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32]),
    "bpf_map_lookup_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_map_update_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]),
    "bpf_map_delete_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p]),
    "bpf_map_get_next_key": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_obj_get_info_by_fd": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_enable_stats": (ctypes.c_int, [ctypes.c_int]),
    "libbpf_num_possible_cpus": (ctypes.c_int, []),
    "libbpf_set_print": (ctypes.c_void_p, [_PrintFn]),
}
# Where unprivileged BPF is off, every call of bpf(2) needs a capability before "bpf: refine
# kernel.unprivileged_bpf_disabled behaviour" (5.19).
_REMEDIES = {errno.EPERM: "CAP_BPF (before 5.8 CAP_SYS_ADMIN), or a seccomp filter that allows bpf(2)"}
_PERCPU_TYPES = frozenset({5, 6})  # BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY (uapi linux/bpf.h)
# struct bpf_prog_info (uapi linux/bpf.h): offsets of run_time_ns, run_cnt (5.1) and recursion_misses (5.12).
_PROG_INFO_BYTES = 232
_PROG_INFO_RUN_TIME_NS = 192


class _Libbpf:
    """The library, loaded once, its warnings kept so that an error can quote them."""

    def __init__(self) -> None:
        try:
            # Not libbpf.so.0: what fails there returns an error number as a pointer (LIBBPF_STRICT_CLEAN_PTRS).
            self.lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
            for name, (restype, argtypes) in _SIGNATURES.items():
                function = getattr(self.lib, name)
                function.restype, function.argtypes = restype, argtypes
        except OSError as error:
            remedy = "apt-get install libbpf1 (Debian 12 or later; the older libbpf0 does not do)"
            raise ObserveError(f"libbpf.so.1 cannot be loaded ({error})", remedy) from error
        except AttributeError as error:
            raise ObserveError(f"libbpf.so.1 lacks a function ({error})", "install libbpf 1.0 or later") from error
        self.warnings: list[str] = []
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._print = _PrintFn(self._keep)  # kept alive: libbpf holds only the pointer
        self.lib.libbpf_set_print(self._print)
        self.possible_cpus = int(self.lib.libbpf_num_possible_cpus())

    def _keep(self, level: int, text: bytes, args: int) -> int:
        if level == _PRINT_WARN:
            buffer = ctypes.create_string_buffer(1024)
            self._vsnprintf(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(args))
            self.warnings = [*self.warnings[-5:], buffer.value.decode(errors="replace").strip()]
        return 0

    def said(self) -> str:
        """The last warnings, once."""
        text = "; ".join(self.warnings)
        self.warnings = []
        return text


_library: _Libbpf | None = None


def library() -> _Libbpf:
    """libbpf, loaded at first use: `--help` needs none."""
    global _library  # noqa: PLW0603 -- one library per process, as the dynamic linker has it
    if _library is None:
        _library = _Libbpf()
    return _library


def refused(what: str, code: int) -> ObserveError:
    """The error of a bpf(2) call that failed with the errno `code`; `what` names the map or program, and the call."""
    name = f"{errno.errorcode.get(code, code)}: {os.strerror(code)}"
    return ObserveError(f"{what} failed ({name})", _REMEDIES.get(code, "report it, with the kernel's release"))


class BpfMap:
    """One map of a loaded object. Keys and values are bytes; per-CPU values are the CPUs' values in a row.

    "No such entry" (ENOENT) is an answer. Anything else is none: ObserveError names the map and the errno.
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
        """The value, or None when the map has no such key. Raises ObserveError when it cannot be read."""
        if self._missing("lookup", self._lib.bpf_map_lookup_elem(self._fd, key, self._value)):
            return None
        return self._value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Write one entry, whether it exists or not. Raises ObserveError."""
        result = self._lib.bpf_map_update_elem(self._fd, key, value, 0)
        if result != 0:
            raise refused(f"BPF map {self.name}: update", -result)

    def delete(self, key: bytes) -> None:
        """Remove one entry; a missing one is no error. Raises ObserveError when it cannot be removed."""
        self._missing("delete", self._lib.bpf_map_delete_elem(self._fd, key))

    def clear(self, keep: Container[bytes] = ()) -> None:
        """Remove every entry but those of the keys to keep. Raises ObserveError."""
        for key in list(self.keys()):
            if key not in keep:
                self.delete(key)

    def keys(self) -> Iterator[bytes]:
        """All keys. Entries inserted meanwhile may or may not appear; none appears twice while nothing is deleted.

        Raises ObserveError when they cannot be read to the end.
        """
        key = ctypes.create_string_buffer(self.key_bytes)
        following = ctypes.create_string_buffer(self.key_bytes)
        previous: ctypes.Array[ctypes.c_char] | None = None
        while not self._missing("next key", self._lib.bpf_map_get_next_key(self._fd, previous, following)):
            yield following.raw
            key.raw = following.raw
            previous = key

    def _missing(self, call: str, result: int) -> bool:
        """Whether the entry asked for does not exist; libbpf 1.0 returns the errno, negated."""
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
    """One object file: loaded at construction, attached on request, gone with close()."""

    def __init__(self, name: str, max_entries: dict[str, int] | None = None, directory: Path = PROBES) -> None:
        """`name` is that of the probe's source without `.bpf.c`; `max_entries` resizes maps before loading."""
        self.name = name
        self._lib = library()
        self._links: list[int] = []
        path = directory / f"{name}.bpf.o"
        if not path.exists():
            raise ObserveError(f"{path} is missing", "build it with `make native`")
        self._object = self._lib.lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise ObserveError(f"{path} cannot be opened", self._lib.said())
        for map_name, entries in (max_entries or {}).items():
            self._lib.lib.bpf_map__set_max_entries(self._map_pointer(map_name), entries)
        if self._lib.lib.bpf_object__load(self._object) != 0:
            reason = os.strerror(ctypes.get_errno())
            self._lib.lib.bpf_object__close(self._object)
            raise ObserveError(f"the kernel refused the probe {name} ({reason})", self._lib.said())

    def attach_raw_tracepoint(self, program: str, tracepoint: str) -> None:
        """Attach one program; arming a tracepoint patches kernel text, which itself broadcasts."""
        link = self._lib.lib.bpf_program__attach_raw_tracepoint(self._program(program), tracepoint.encode())
        if not link:
            reason = os.strerror(ctypes.get_errno())
            raise ObserveError(f"tracepoint {tracepoint} cannot be attached ({reason})", self._lib.said())
        self._links.append(link)

    def attach_kprobe(self, program: str, function: str, *, at_return: bool = False) -> None:
        """Attach one program to the entry or the return of a kernel function, named as in kallsyms."""
        link = self._lib.lib.bpf_program__attach_kprobe(self._program(program), at_return, function.encode())
        if not link:
            reason = os.strerror(ctypes.get_errno())
            raise ObserveError(f"a kprobe on {function} cannot be attached ({reason})", self._lib.said())
        self._links.append(link)

    def detach(self) -> None:
        """Detach every program; the maps stay readable."""
        while self._links:
            self._lib.lib.bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach, and give the maps and programs back to the kernel. Safe to call twice."""
        self.detach()
        if self._object:
            self._lib.lib.bpf_object__close(self._object)
            self._object = None

    def map(self, name: str) -> BpfMap:
        """A map by its name in the C source."""
        return BpfMap(self._map_pointer(name), name)

    def run_statistics(self, program: str) -> tuple[int, int, int]:
        """(run_time_ns, runs, recursion_misses) of a program; the first two rise only while BPF statistics are on.

        The last is 0 before 5.12. Raises ObserveError when the kernel does not tell.
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
        """Libbpf takes no null pointer for an object: it would end the process."""
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
        raise ObserveError("BPF run-time statistics cannot be enabled", os.strerror(ctypes.get_errno()))
    return fd
