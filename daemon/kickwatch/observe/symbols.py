"""Kernel addresses to names and names to address ranges, from /proc/kallsyms.

Only text symbols are kept, in arrays rather than objects: a node has 60 to 200 thousand of them, and the daemon
keeps them for its whole life.
"""

import asyncio
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import aiofiles

from kickwatch.errors import ObserveError

WANTED_DATA = frozenset({"slab_mutex"})
"""Data symbols worth an address. Only kernels with CONFIG_KALLSYMS_ALL list them."""

# No function is longer. Behind the last symbol of the kernel or of a module there is no text at all.
_MAX_FUNCTION_BYTES = 1 << 20

# `__pfx_` (padding before a function: "x86: Add prefix symbols for function padding", 6.2) and `__cfi_` (type hashes,
# kernels built by clang) would double the table, and no return address lies in either.
_LINE = re.compile(
    rb"^([0-9a-f]+) (?:[tTwW] (?!__pfx_|__cfi_)(?P<text>\S+)|[^tTwW\n] (?P<data>\S+)(?P<module>\t)?)",
    re.MULTILINE,
)
# What compilers append to the name of a clone or of a split-off part.
_CLONE = rb"(?:\.(?:isra|constprop|part|cold|llvm)(?:\.[0-9]+)?)*"


class Symbols:
    """The text symbols of one boot. `hidden`: the kernel listed no address, which is a lost capability.

    All names lie in one blob, each between two NUL bytes; `_starts[i]` is where name i begins. An empty name marks the
    end of a stretch of text: behind it there is no function until the next entry.
    """

    def __init__(self, addresses: "array[int]", starts: "array[int]", names: bytes, data: dict[str, int]) -> None:
        """Use `parse` or `load`. `addresses` ascends and has one entry for each of `starts`."""
        self._addresses = addresses
        self._starts = starts
        self._names = names
        self._data = data
        self.hidden = not addresses

    def __len__(self) -> int:
        """Number of entries, ends of text included."""
        return len(self._addresses)

    @classmethod
    def parse(cls, text: str, wanted_data: Iterable[str] = WANTED_DATA) -> Self:
        """Read the whole text of /proc/kallsyms (`address type name [module]`, proc(5)); other lines are skipped.

        An address of zero, which the kernel shows to readers without CAP_SYSLOG, is no address.
        """
        return cls._parse(text.encode(), wanted_data)

    @classmethod
    async def load(cls, proc: Path) -> Self:
        """Read `proc`/kallsyms once, whole; parsing takes a tenth of a second and happens in a thread."""
        path = proc / "kallsyms"
        try:
            # As bytes: a decoded copy of these megabytes would stay in the heap for good.
            async with aiofiles.open(path, "rb") as file:
                raw = await file.read()
        except OSError as error:
            what = f"{path} cannot be read ({error.strerror})"
            raise ObserveError(what, "run as root; ProtectKernelTunables= in a unit hides it") from error
        return await asyncio.to_thread(cls._parse, raw)

    def resolve(self, address: int) -> str:
        """Name of the function that holds `address`, without offset; the address in hex where there is none.

        Of several names for one address the first listed counts, as in the kernel's own kallsyms_lookup().
        """
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] >= _MAX_FUNCTION_BYTES or not self._name(index):
            return f"{address:#x}"
        first = bisect_left(self._addresses, self._addresses[index])
        return next(filter(None, map(self._name, range(first, index + 1))))

    def ranges(self, name: str) -> list[tuple[int, int]]:
        """(start, end) of every text symbol named `name` or cloned from it (`name.isra.0`, `name.cold`), ascending."""
        pattern = re.compile(rb"\0" + re.escape(name.encode()) + _CLONE + rb"(?=\0)")
        found = {match.start() + 1 for match in pattern.finditer(self._names)} if name else set()
        return [self._range(index) for index, start in enumerate(self._starts) if start in found]

    def address_of(self, name: str) -> int | None:
        """Address of one of the wanted data symbols; None where the kernel does not list it."""
        return self._data.get(name)

    @classmethod
    def _parse(cls, raw: bytes, wanted_data: Iterable[str] = WANTED_DATA) -> Self:
        wanted = {name.encode() for name in wanted_data}
        addresses, starts, names, data = array("Q"), array("I"), bytearray(b"\0"), dict[str, int]()
        for line in _LINE.finditer(raw):
            digits, name, datum, module = line.groups()
            address = int(digits, 16)
            if not address:
                continue
            if name is None:
                if datum in wanted and module is None:
                    data.setdefault(datum.decode(), address)
                if not starts or names.endswith(b"\0\0"):  # this end of text is marked already
                    continue
                name = b""
            addresses.append(address)
            starts.append(len(names))
            names += name
            names.append(0)
        return cls(*_sorted(addresses, starts), bytes(names), data)

    def _name(self, index: int) -> str:
        start = self._starts[index]
        return self._names[start : self._names.index(b"\0", start)].decode(errors="replace")

    def _range(self, index: int) -> tuple[int, int]:
        start = self._addresses[index]
        after = bisect_right(self._addresses, start)
        limit = start + _MAX_FUNCTION_BYTES
        return start, min(self._addresses[after], limit) if after < len(self._addresses) else limit


def _sorted(addresses: "array[int]", starts: "array[int]") -> tuple["array[int]", "array[int]"]:
    """Ascending by address; stable, so that aliases keep their order.

    The kernel's own symbols ascend already; those of modules and BPF programs, listed behind them, do not. Only what
    lies above the lowest of these is sorted: little on x86, where modules live above the kernel.
    """
    count = len(addresses)
    tail = next((index for index in range(1, count) if addresses[index] < addresses[index - 1]), count)
    if tail == count:
        return addresses, starts
    first = bisect_right(addresses, min(addresses[tail:]), 0, tail)
    order = sorted(range(first, count), key=addresses.__getitem__)
    return (
        addresses[:first] + array("Q", map(addresses.__getitem__, order)),
        starts[:first] + array("I", map(starts.__getitem__, order)),
    )
