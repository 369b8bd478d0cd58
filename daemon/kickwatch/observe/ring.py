"""A BPF ring buffer (5.8 and later), mapped into memory. The kernel never wakes the reader, which looks by itself.

Its layout is in kernel/bpf/ringbuf.c: a page with the reader's position, a page with the writer's, and the data, mapped
twice in a row so that every record is in one piece.
"""

import mmap
import struct
import threading
from collections.abc import Callable
from typing import Self

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf_map import BpfMap

_BUSY, _DISCARDED = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT of a record's length
_HEADER_BYTES = 8


class Ring:
    """The consumer of one ring. `close` it before the object that has its map."""

    def __init__(self, ring: BpfMap, keep: Callable[[bytes], None]) -> None:
        """`keep` gets every record. Raises ObserveError."""
        self._keep = keep
        self._bytes = ring.max_entries
        page = mmap.PAGESIZE
        try:
            self._reader = mmap.mmap(ring.fd, page)
            self._writer = mmap.mmap(ring.fd, page + 2 * self._bytes, prot=mmap.PROT_READ, offset=page)
        except (OSError, ValueError) as error:
            raise ObserveError(f"the ring buffer {ring.name} cannot be read ({error})", "report it") from error
        self._data = page
        self._order = threading.Lock()
        self._order.acquire()

    def consume(self) -> int:
        """Pass on every complete record; returns their number."""
        if self._reader.closed:
            return 0
        count = 0
        (position,) = struct.unpack_from("@Q", self._reader)
        (end,) = struct.unpack_from("@Q", self._writer)
        self._order_reads()
        while position < end:
            at = self._data + (position & (self._bytes - 1))
            (length,) = struct.unpack_from("@I", self._writer, at)
            if length & _BUSY:
                break
            self._order_reads()
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                self._keep(self._writer[at + _HEADER_BYTES : at + _HEADER_BYTES + size])
                count += 1
            position += -(-(size + _HEADER_BYTES) // 8) * 8
            self._order_reads()
            struct.pack_into("@Q", self._reader, 0, position)
        return count

    def _order_reads(self) -> None:
        """A memory barrier, which arm64 needs between the reads: a release and an acquire of one lock are one."""
        self._order.release()
        self._order.acquire()

    def close(self) -> None:
        """Unmap it. Safe to call twice."""
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
