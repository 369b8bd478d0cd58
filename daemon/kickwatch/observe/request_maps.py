"""Reads the maps of a request probe: the figures of one bank, while it rests.

The probe counts in two banks (cells.h). Figures of a bank at rest belong to the same requests, unless a program that
began before still runs. It adds to the targets last, and they are read first: so the sum over targets can only be too
low, and if it is equal to the sum over cells, no request is counted in part.
"""

import struct
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import BANKS, CELL, FIGURES, HIT_KEY, HITS, MASK_CALLS, NEAR_CPUS, TARGETS, THIS_CPU
from kickwatch.observe.masks import cpus_in
from kickwatch.observe.readings import INDEX, sums_of
from kickwatch.observe.request_cells import Totals

_WORD_BYTES = 8
_FIGURES = len(FIGURES.members)
_CPU_WORDS = THIS_CPU.size // _WORD_BYTES
_FIRST_CELL = THIS_CPU.offset_of("frequent") // _WORD_BYTES
_FIRST_HIT = THIS_CPU.offset_of("hits") // _WORD_BYTES
_NO_ROOM_ABOVE = 3072  # of the 4096 entries of `hits` and `masks`


@dataclass(frozen=True)
class BankFigures:
    """What one bank had counted. `targets`: requests by CPU; `unplaced`: those whose target is not known.

    `hits`: requests by (address of the function, isolated CPU).
    """

    totals: Mapping[bytes, Totals] = field(default_factory=dict)
    targets: Sequence[int] = ()
    unplaced: int = 0
    hits: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def excess(self) -> int:
        """Requests that are in the cells and not among the targets."""
        return sum(totals.requests for totals in self.totals.values()) - sum(self.targets) - self.unplaced


class EachCpu:
    """What each CPU has for itself (`struct this_cpu`), summed over CPUs: one bank of it."""

    def __init__(self, probe: BpfObject, bank: int, cpus: int) -> None:
        """Read it, for `cpus` CPUs. Raises ObserveError."""
        self._words = memoryview(b"".join(probe.map("each_cpu").entries(range(cpus)))).cast("Q")
        self._bank = bank

    def targets(self, cpus: int) -> list[int]:
        """Requests by target, of the CPUs below NEAR_CPUS."""
        first = self._bank * TARGETS
        return [self._sum(first + cpu) for cpu in range(min(cpus, NEAR_CPUS))]

    def unplaced(self) -> int:
        """Requests whose target is not known."""
        return self._sum(self._bank * TARGETS + NEAR_CPUS)

    def totals(self, keys: Mapping[int, bytes]) -> dict[bytes, Totals]:
        """The cells of frequent functions with requests. `keys`: the key of each, by the function's index."""
        found = {}
        for index, key in keys.items():
            first = _FIRST_CELL + (index * BANKS + self._bank) * _FIGURES
            if requests := self._sum(first):
                found[key] = Totals(requests, *(self._sum(first + further) for further in range(1, _FIGURES)))
        return found

    def hits(self, funcs: Sequence[int], isolated: Iterable[int]) -> Counter[tuple[int, int]]:
        """Single requests of frequent functions to isolated CPUs. `funcs`: their addresses, in the probe's order."""
        found: Counter[tuple[int, int]] = Counter()
        for cpu in (cpu for cpu in isolated if cpu < NEAR_CPUS):
            for index, func in enumerate(funcs):
                word = _FIRST_HIT + (self._bank * len(funcs) + index) * NEAR_CPUS + cpu
                if func and (requests := self._sum(word)):
                    found[func, cpu] = requests
        return found

    def _sum(self, word: int) -> int:
        return sum(self._words[word::_CPU_WORDS])


def read_totals(probe: BpfObject, bank: int) -> dict[bytes, Totals]:
    """Every cell in the map `cells` with requests in this bank. Raises ObserveError."""
    found = {}
    unpack, first = CELL.packed.unpack, bank * _FIGURES
    for key, value in probe.map("cells").items():
        figures = unpack(value)[first : first + _FIGURES]
        if figures[0]:
            found[key] = Totals(*figures)
    return found


def read_far_targets(probe: BpfObject, bank: int, cpus: int) -> list[int]:
    """Requests by target, of the CPUs from NEAR_CPUS on. Raises ObserveError."""
    far = far_cpus(cpus)
    return sums_of(probe.map("far_targets"), range(bank * far, (bank + 1) * far)) if far else []


def far_cpus(cpus: int) -> int:
    """Of `cpus` CPUs, how many the probe counts in a separate map."""
    return max(0, cpus - NEAR_CPUS)


def read_hits(probe: BpfObject, bank: int) -> Counter[tuple[int, int]]:
    """Single requests (on the first rung all requests) of other functions to isolated CPUs. Raises ObserveError."""
    found: Counter[tuple[int, int]] = Counter()
    for key, value in probe.map("hits").items():
        func, cpu, _ = HIT_KEY.packed.unpack(key)
        if requests := HITS.packed.unpack(value)[bank]:
            found[func, cpu] = requests
    return found


def has_room(probe: BpfObject, name: str) -> bool:
    """False if the map `name` (`hits` or `masks`) is nearly full. Raises ObserveError."""
    return sum(1 for _ in probe.map(name).keys()) <= _NO_ROOM_ABOVE  # noqa: SIM118 -- a BPF map, not a dict


class MaskCalls:
    """One bank's multi-CPU calls by function and mask on the second rung, as sums by target.

    Few masks get further calls between two readings, so only those are walked.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self._targets: Counter[int] = Counter()
        self._hits: Counter[tuple[int, int]] = Counter()

    def follow(self, probe: BpfObject, bank: int, isolated: Iterable[int]) -> None:
        """Read the bank. `isolated`: the CPUs that are. Raises ObserveError."""
        mask = sum(1 << cpu for cpu in isolated)
        for key, value in probe.map("masks").items():
            calls = MASK_CALLS.packed.unpack(value)[bank]
            if more := calls - self._seen.get(key, 0):
                self._seen[key] = calls
                self._expand(key, more, mask)

    def added_to(self, counted: BankFigures) -> BankFigures:
        """The bank's single requests and its multi-CPU calls together."""
        targets = [requests + self._targets[cpu] for cpu, requests in enumerate(counted.targets)]
        hits = Counter(counted.hits)
        hits.update(self._hits)
        return replace(counted, targets=targets, hits=hits)

    def _expand(self, key: bytes, calls: int, isolated: int) -> None:
        (func,) = struct.unpack_from("=Q", key)
        cpus = int.from_bytes(key[_WORD_BYTES:], sys.byteorder)
        for cpu in cpus_in(cpus):
            self._targets[cpu] += calls
        for cpu in cpus_in(cpus & isolated):
            self._hits[func, cpu] += calls


def clear_targets(probe: BpfObject, cpus: int) -> None:
    """Set what each CPU has for itself to zero, while the probe is paused. Raises ObserveError."""
    for name, entries in (("far_targets", BANKS * far_cpus(cpus)), ("each_cpu", cpus)):
        emptied = probe.map(name)
        for index in range(entries):
            emptied.put(INDEX.pack(index), bytes(emptied.value_bytes))
