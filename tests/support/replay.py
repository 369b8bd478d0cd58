"""Run made-up events through a probe that is loaded but not attached, with BPF_PROG_TEST_RUN."""

import ctypes
import os
import struct
from dataclasses import dataclass

from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.libbpf import library

_RUN_ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU, for raw tracepoints since "bpf: Introduce BPF_PROG_TEST_RUN for raw_tp" (5.10)


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Replay:
    """Runs the programs of one loaded probe."""

    probe: BpfObject

    def run(self, program: str, *args: int, cpu: int | None = None) -> None:
        """Run `program` once with the event's arguments, on `cpu` or else on the current CPU."""
        lib = library().lib
        lib.bpf_prog_test_run_opts.argtypes = [ctypes.c_int, ctypes.POINTER(_Options)]
        context = struct.pack(f"={len(args)}Q", *args)
        options = _Options(sz=ctypes.sizeof(_Options), ctx_in=context, ctx_size_in=len(context))
        if cpu is not None:
            options.flags, options.cpu = _RUN_ON_CPU, cpu
        error = lib.bpf_prog_test_run_opts(lib.bpf_program__fd(self.probe._program(program)), ctypes.byref(options))
        assert error == 0, f"{program}{args} on CPU {cpu}: {os.strerror(ctypes.get_errno())}"
