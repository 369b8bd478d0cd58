"""Run made-up events through a probe that is loaded but not attached, with BPF_PROG_TEST_RUN."""

import ctypes
import os
import struct
from dataclasses import dataclass

from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.bpf_calls import bpf

_TEST_RUN = 10  # BPF_PROG_TEST_RUN
_RUN_ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU, for raw tracepoints since "bpf: Introduce BPF_PROG_TEST_RUN for raw_tp" (5.10)


@dataclass(frozen=True)
class Replay:
    """Runs the programs of one loaded probe."""

    probe: BpfObject

    def run(self, program: str, *args: int, cpu: int | None = None) -> None:
        """Run `program` once with the event's arguments, on `cpu` or else on the current CPU."""
        context = ctypes.create_string_buffer(struct.pack(f"={len(args)}Q", *args))
        flags, on = (0, 0) if cpu is None else (_RUN_ON_CPU, cpu)
        # prog_fd, retval, sizes and addresses of the data, repeat, duration, sizes and addresses of the context
        words = (self.probe.program_fd(program), 0, 0, 0, 0, 0, 0, 0, 8 * len(args), 0, ctypes.addressof(context), 0)
        error = bpf(_TEST_RUN, struct.pack("=IIIIQQIIIIQQIII", *words, flags, on, 0))
        assert error == 0, f"{program}{args} on CPU {cpu}: {os.strerror(-error)}"
