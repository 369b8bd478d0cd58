"""Kernel addresses to names and names to address ranges, from /proc/kallsyms.

Only text symbols are kept, in arrays and compressed rather than as objects: a node has 60 to 200 thousand of them, and
the daemon keeps them as long as it runs. The kernel's own symbols never change. Those of modules and BPF programs are
in a second table, which is read again when a module was loaded or removed.
"""

import asyncio
import re
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter, le
from pathlib import Path
from typing import Self

from kickwatch.errors import ObserveError
from kickwatch.node.diagnosis import Act, Refusal, diagnose
from kickwatch.node.facts import read_facts

WANTED_DATA = frozenset({"slab_mutex"})
"""Data symbols whose address is kept. Only kernels with CONFIG_KALLSYMS_ALL list them."""

# No function is longer. After the last symbol of the kernel or of a module there is no text.
_MAX_FUNCTION_BYTES = 1 << 20
_BLOCK = 256  # names. The kernel's 64,000 take 0.7 MiB less than uncompressed, and one is found in 40 us
_CHUNK_BYTES = 1 << 16  # the file has megabytes: it is read in pieces to save memory

# `__pfx_` (padding before a function: "x86: Add prefix symbols for function padding", 6.2) and `__cfi_` (type hashes,
# kernels built by clang) would double the table, and no return address lies in either.
_LINE = re.compile(
    rb"^([0-9a-f]+) (?:[tTwW] (?!__pfx_|__cfi_)(?P<text>\S+)|[^tTwW\n] (?P<data>\S+))(?P<module>\t)?", re.MULTILINE
)
# Suffixes that compilers append to a name. A pointer may refer to a renamed function: ThinLTO and GCC's LTO rename a
# static function to make it global, -funique-internal-linkage-names to make its name unique. A pointer never refers to
# a clone or a part.
_RENAMED = rb"llvm|lto_priv|__uniq"
_CLONED = _RENAMED + rb"|isra|constprop|part|cold"


class _Table:
    """Text symbols, ascending by address. Names are compressed, _BLOCK together, since only a few are ever wanted.

    An empty name marks the end of some text: no function follows until the next entry.
    """

    def __init__(self) -> None:
        self.addresses = array("Q")
        self._blocks: list[bytes] = []
        self._open: list[bytes] = []  # the names after the last full block
        self._ended = False  # the last name is empty
        self._decoded: dict[int, str] = {}  # one string for a function that is in many stacks

    def add(self, address: int, name: bytes) -> None:
        """Append a function, or with an empty name the end of the text before it."""
        if not name and (not self.addresses or self._ended):
            return  # no text before it, or its end is already marked
        self._ended = not name
        self.addresses.append(address)
        self._open.append(name)
        if len(self._open) == _BLOCK:
            self._blocks.append(zlib.compress(b"\n".join(self._open)))
            self._open.clear()

    def sort(self) -> None:
        """Sort by address; stable, since aliases must keep their order. The kernel's own symbols are in order."""
        if all(map(le, self.addresses, islice(self.addresses, 1, None))):
            return
        names = [name for block in range(len(self._blocks) + 1) for name in self._names(block)]
        entries = sorted(zip(self.addresses, names, strict=True), key=itemgetter(0))
        self.addresses, self._blocks, self._open, self._ended = array("Q"), [], [], False
        for address, name in entries:
            self.add(address, name)

    def at_or_below(self, address: int) -> int:
        """The nearest entry's address; -1 if there is none."""
        index = bisect_right(self.addresses, address) - 1
        return self.addresses[index] if index >= 0 else -1

    def above(self, address: int) -> int:
        """The next entry's address, but no further than the longest function reaches."""
        index = bisect_right(self.addresses, address)
        limit = address + _MAX_FUNCTION_BYTES
        return min(self.addresses[index], limit) if index < len(self.addresses) else limit

    def name_of(self, address: int) -> str:
        """Name of the function that contains `address`, the first listed of several names; empty if none does."""
        index = bisect_right(self.addresses, address) - 1
        if index < 0 or address - self.addresses[index] >= _MAX_FUNCTION_BYTES or not self._name(index):
            return ""
        first = bisect_left(self.addresses, self.addresses[index])
        return next(filter(None, map(self._name, range(first, index + 1))))

    def find(self, names: Iterable[str], suffixes: bytes) -> Iterator[tuple[str, int]]:
        """(one of `names`, address) of every symbol with such a name, also with compilers' suffixes. In one pass."""
        wanted = b"|".join(re.escape(name.encode()) for name in names if name)
        pattern = re.compile(rb"^(" + wanted + rb")(?:\.(?:" + suffixes + rb")(?:\.[0-9]+)?)*$", re.MULTILINE)
        for block in range(len(self._blocks) + 1) if wanted else ():
            listed = b"\n".join(self._names(block))
            for match in pattern.finditer(listed):
                index = block * _BLOCK + listed.count(b"\n", 0, match.start())
                yield match[1].decode(), self.addresses[index]

    def _name(self, index: int) -> str:
        name = self._decoded.get(index)
        if name is None:
            block, place = divmod(index, _BLOCK)
            name = self._decoded[index] = self._names(block)[place].decode(errors="replace")
        return name

    def _names(self, block: int) -> list[bytes]:
        """The names of a block; those after the last full block if it is the next."""
        return self._open if block == len(self._blocks) else zlib.decompress(self._blocks[block]).split(b"\n")


class Symbols:
    """The text symbols of one boot."""

    def __init__(self, proc: Path | None = None) -> None:
        """Use `parse` or `load`. `proc` is read again by `follow_modules`."""
        self._proc = proc
        self._kernel, self._loaded = _Table(), _Table()
        self._data: dict[str, int] = {}
        self._modules: frozenset[bytes] = frozenset()

    def __len__(self) -> int:
        """Number of entries, including ends of text."""
        return len(self._kernel.addresses) + len(self._loaded.addresses)

    @property
    def hidden(self) -> bool:
        """True if the kernel showed no address: a lost capability."""
        return not len(self)

    @classmethod
    def parse(cls, text: str, wanted_data: Iterable[str] = WANTED_DATA) -> Self:
        """Read the whole text of /proc/kallsyms (`address type name [module]`, proc(5)); other lines are skipped.

        Addresses of zero are skipped, too: the kernel shows them to readers without CAP_SYSLOG.
        """
        symbols = cls()
        symbols._data = _read([text.encode()], symbols._kernel, symbols._loaded, wanted_data)
        return symbols

    @classmethod
    async def load(cls, proc: Path) -> Self:
        """Read `proc`/kallsyms, in a thread: it takes two tenths of a second."""
        symbols = cls(proc)
        await asyncio.to_thread(symbols._load, proc)
        return symbols

    async def follow_modules(self) -> bool:
        """Read the names of modules and BPF programs again if a module was loaded or removed; True if so.

        Names that were resolved before may then be wrong. Changes of BPF programs alone are ignored: they come with
        every container, and no request has ever been attributed by the name of a program.
        """
        return self._proc is not None and await asyncio.to_thread(self._reload, self._proc)

    def resolve(self, address: int) -> str:
        """Name of the function that contains `address`, without offset; the address in hex if none does.

        Of several names for one address the first listed is used, as in the kernel's own kallsyms_lookup().
        """
        kernel, loaded = self._kernel, self._loaded
        table = loaded if loaded.at_or_below(address) > kernel.at_or_below(address) else kernel
        return table.name_of(address) or f"{address:#x}"

    def ranges(self, name: str) -> list[tuple[int, int]]:
        """(start, end) of every text symbol named `name` or cloned from it (`name.isra.0`, `name.cold`), ascending."""
        found = (address for table in self._tables for _, address in table.find([name], _CLONED))
        return [(start, min(table.above(start) for table in self._tables)) for start in sorted(found)]

    def entries(self, names: Iterable[str]) -> dict[str, list[int]]:
        """The addresses of pointers to the functions `names`, never those of clones and parts. In one pass.

        The list is empty for a name that is not a symbol; static functions of the same name have one address each.
        """
        wanted = dict.fromkeys(names)
        found: dict[str, list[int]] = {name: [] for name in wanted}
        for name, address in chain.from_iterable(table.find(wanted, _RENAMED) for table in self._tables):
            found[name].append(address)
        return found

    def places(self, names: Iterable[str]) -> dict[str, list[int]]:
        """The addresses of the kernel's own functions that are resolved to `names`; several if functions share a name.

        A function of a module with such a name is another one, or the kernel's, patched (livepatch).
        """
        found: dict[str, list[int]] = {name: [] for name in names}
        for name, address in self._kernel.find(found, _RENAMED):
            if self.resolve(address) == name and address not in found[name]:
                found[name].append(address)
        return found

    def address_of(self, name: str) -> int | None:
        """Address of one of the wanted data symbols; None if the kernel does not list it."""
        return self._data.get(name)

    @property
    def _tables(self) -> tuple[_Table, _Table]:
        return self._kernel, self._loaded

    def _load(self, proc: Path) -> None:
        self._modules = read_modules(proc)  # first: a module that is loaded in between shows as a change
        self._data = _read(_chunks(proc / "kallsyms"), self._kernel, self._loaded, WANTED_DATA)

    def _reload(self, proc: Path) -> bool:
        modules = read_modules(proc)
        if modules == self._modules:
            return False
        table = _Table()
        _read(_chunks(proc / "kallsyms"), None, table, ())
        self._loaded, self._modules = table, modules
        return True


def _read(chunks: Iterable[bytes], kernel: _Table | None, loaded: _Table, wanted_data: Iterable[str]) -> dict[str, int]:
    """Fill the tables from whole lines, without `kernel` only `loaded`. Returns the addresses of wanted data."""
    wanted = {name.encode() for name in wanted_data}
    data: dict[str, int] = {}
    for line in chain.from_iterable(map(_LINE.finditer, chunks)):
        digits, name, datum, module = line.groups()
        table = loaded if module else kernel
        if table is None or not (address := int(digits, 16)):
            continue
        table.add(address, name or b"")
        if datum in wanted and not module:
            data.setdefault(datum.decode(), address)
    for table in filter(None, (kernel, loaded)):
        table.sort()
    return data


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            rest = b""
            while piece := file.read(_CHUNK_BYTES):
                whole, _, rest = (rest + piece).rpartition(b"\n")
                yield whole + b"\n"
            yield rest
    except OSError as error:
        cause = diagnose(Refusal(Act.SYMBOLS, error.errno or 0), read_facts())
        raise ObserveError(f"{path} cannot be read ({error.strerror}): {cause.what}", cause.remedy) from error


def read_modules(proc: Path) -> frozenset[bytes]:
    """The loaded modules, each with name, size, state and address, from `proc`/modules.

    The use counts between these fields are left out: they change with every container. Without the file, the kernel has
    no modules.
    """
    try:
        lines = (proc / "modules").read_bytes().splitlines()
    except OSError:
        return frozenset()
    words = (line.split() for line in lines)
    return frozenset(b" ".join((*word[:2], *word[4:6])) for word in words)
