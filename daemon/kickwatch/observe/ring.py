"""A BPF ring buffer (5.8 and later), read through libbpf. The kernel never wakes the reader, which looks by itself."""

import ctypes
import os
from collections.abc import Callable
from typing import Self

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf import BpfMap
from kickwatch.observe.libbpf import library
from kickwatch.observe.refused import refused

_Sample = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Ring:
    """The consumer of one ring. `close` it before the object that has its map."""

    def __init__(self, ring: BpfMap, keep: Callable[[bytes], None]) -> None:
        """`keep` gets every record. It must not raise: it is called from C. Raises ObserveError."""
        lib = library()
        self._lib = lib.lib
        self._lib.ring_buffer__new.restype = ctypes.c_void_p
        self._lib.ring_buffer__new.argtypes = [ctypes.c_int, _Sample, ctypes.c_void_p, ctypes.c_void_p]
        for name in ("ring_buffer__consume", "ring_buffer__free"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]

        def sample(_context: int, data: int, size: int) -> int:
            keep(ctypes.string_at(data, size))
            return 0

        self._sample = _Sample(sample)  # must stay referenced: libbpf has only the pointer
        self._ring = self._lib.ring_buffer__new(ring.fd, self._sample, None, None)
        if not self._ring:
            reason = os.strerror(ctypes.get_errno())
            raise ObserveError(f"the ring buffer {ring.name} cannot be read ({reason})", lib.take_warnings())

    def consume(self) -> int:
        """Pass on every complete record; returns their number. Raises ObserveError."""
        if not self._ring:
            return 0
        count = int(self._lib.ring_buffer__consume(self._ring))
        if count < 0:
            raise refused("reading the ring buffer", -count)
        return count

    def close(self) -> None:
        """Free it. Safe to call twice."""
        if self._ring:
            self._lib.ring_buffer__free(self._ring)
            self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
