"""Reading a ring buffer whose memory is a file: records in order, across its end, not before they are complete."""

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from kickwatch.errors import ObserveError
from kickwatch.observe.bpf_map import BpfMap
from kickwatch.observe.map_definitions import MapDefinition
from kickwatch.observe.ring import Ring

BYTES = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Writer:
    """The kernel's side. The data lie twice in a row there; here each record is written twice."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * mmap.PAGESIZE + 2 * BYTES)
        self.end = 0

    def write(self, data: bytes, flags: int = 0) -> int:
        """Reserve and fill one record; returns its position."""
        at, record = self.end, struct.pack("=II", len(data) | flags, 0) + data
        self.end += -(-len(record) // 8) * 8
        start, data_at = at % BYTES, 2 * mmap.PAGESIZE
        for index, byte in enumerate(record):
            for copy in (0, BYTES):
                os.pwrite(self.fd, bytes([byte]), data_at + copy + (start + index) % BYTES)
        os.pwrite(self.fd, struct.pack("=Q", self.end), mmap.PAGESIZE)
        return at

    def complete(self, at: int, length: int) -> None:
        for offset in (at % BYTES, at % BYTES + BYTES):
            os.pwrite(self.fd, struct.pack("=I", length), 2 * mmap.PAGESIZE + offset)

    def read_up_to(self) -> int:
        """The reader's position."""
        return int(struct.unpack("=Q", os.pread(self.fd, 8, 0))[0])


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer()
    yield made
    os.close(made.fd)


def ring(writer: Writer, found: list[bytes]) -> Ring:
    return Ring(BpfMap("ring", writer.fd, MapDefinition(27, 0, 0, BYTES)), found.append)


def test_records_come_in_order_and_once(writer: Writer) -> None:
    found: list[bytes] = []
    with ring(writer, found) as reader:
        assert reader.consume() == 0
        for length in (1, 8, 13):
            writer.write(bytes([length]) * length)
        assert reader.consume() == 3
        assert reader.consume() == 0
    assert found == [bytes([length]) * length for length in (1, 8, 13)]
    assert writer.read_up_to() == writer.end


def test_a_record_that_is_being_written_stops_the_reader_until_it_is_complete(writer: Writer) -> None:
    found: list[bytes] = []
    with ring(writer, found) as reader:
        writer.write(b"first")
        at = writer.write(b"second", BUSY)
        writer.write(b"third")
        assert reader.consume() == 1
        assert writer.read_up_to() == at
        writer.complete(at, 6)
        assert reader.consume() == 2
    assert found == [b"first", b"second", b"third"]


def test_a_discarded_record_is_passed_over(writer: Writer) -> None:
    found: list[bytes] = []
    with ring(writer, found) as reader:
        writer.write(b"kept")
        writer.write(b"dropped", DISCARDED)
        writer.write(b"kept, too")
        assert reader.consume() == 2
    assert found == [b"kept", b"kept, too"]


def test_records_across_the_end_of_the_buffer_are_whole(writer: Writer) -> None:
    found: list[bytes] = []
    written = [bytes([number]) * 1000 for number in range(1, 20)]
    with ring(writer, found) as reader:
        for data in written:
            writer.write(data)
            assert reader.consume() == 1
    assert found == written
    assert writer.end > 4 * BYTES


def test_a_closed_ring_has_no_records(writer: Writer) -> None:
    reader = ring(writer, [])
    writer.write(b"late")
    reader.close()
    reader.close()
    assert reader.consume() == 0


def test_a_map_that_cannot_be_mapped_is_an_error() -> None:
    with open(os.devnull, "rb") as file, pytest.raises(ObserveError, match="ring buffer some cannot be read"):  # noqa: PTH123
        Ring(BpfMap("some", file.fileno(), MapDefinition(27, 0, 0, BYTES)), [].append)
