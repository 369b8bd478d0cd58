"""Parse a datagram of the journal's native protocol."""

import struct


def parsed(datagram: bytes) -> list[tuple[str, bytes]]:
    """The fields of a datagram, as journald parses them."""
    fields, rest = [], datagram
    while rest:
        line, _, rest = rest.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        fields.append((name.decode("ascii"), value))
    return fields
