"""The library libbpf, loaded through ctypes: the functions that kickwatch calls, and the errors of those that fail."""

import ctypes

from kickwatch.errors import ObserveError

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
    "bpf_map__set_key_size": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32]),
    "bpf_map__reuse_fd": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
    "bpf_map__set_max_entries": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32]),
    "bpf_map_lookup_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_map_lookup_batch": (ctypes.c_int, [ctypes.c_int, *[ctypes.c_void_p] * 6]),
    "bpf_map_update_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]),
    "bpf_map_delete_elem": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p]),
    "bpf_map_get_next_key": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_obj_get_info_by_fd": (ctypes.c_int, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]),
    "bpf_enable_stats": (ctypes.c_int, [ctypes.c_int]),
    "libbpf_num_possible_cpus": (ctypes.c_int, []),
    "libbpf_set_print": (ctypes.c_void_p, [_PrintFn]),
}


class _Libbpf:
    """The loaded library, with its latest warnings, which errors quote."""

    def __init__(self) -> None:
        try:
            # Not libbpf.so.0: there a function that fails returns an error number as a pointer
            # (LIBBPF_STRICT_CLEAN_PTRS).
            self.lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
            for name, (restype, argtypes) in _SIGNATURES.items():
                function = getattr(self.lib, name)
                function.restype, function.argtypes = restype, argtypes
        except OSError as error:
            remedy = "apt-get install libbpf1 (Debian 12 or later; the older libbpf0 does not work)"
            raise ObserveError(f"libbpf.so.1 cannot be loaded ({error})", remedy) from error
        except AttributeError as error:
            raise ObserveError(f"libbpf.so.1 lacks a function ({error})", "install libbpf 1.0 or later") from error
        self.warnings: list[str] = []
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._print = _PrintFn(self._keep)  # must stay referenced: libbpf has only the pointer
        self.lib.libbpf_set_print(self._print)
        self.possible_cpus = int(self.lib.libbpf_num_possible_cpus())

    def _keep(self, level: int, text: bytes, args: int) -> int:
        if level == _PRINT_WARN:
            buffer = ctypes.create_string_buffer(1024)
            self._vsnprintf(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(args))
            self.warnings = [*self.warnings[-5:], buffer.value.decode(errors="replace").strip()]
        return 0

    def take_warnings(self) -> str:
        """The latest warnings; they are returned once."""
        text = "; ".join(self.warnings)
        self.warnings = []
        return text


_library: _Libbpf | None = None


def library() -> _Libbpf:
    """libbpf, loaded at first use, since `--help` and the like do not need it."""
    global _library  # noqa: PLW0603 -- one library per process, as the dynamic linker has it
    if _library is None:
        _library = _Libbpf()
    return _library
