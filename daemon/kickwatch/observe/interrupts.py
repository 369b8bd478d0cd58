"""Reads the IPI rows of /proc/interrupts: what every CPU received, by kind, and the rise between two readings.

The counters know no cause; they are the second source that the attributed figures are held against, and all there is
where BPF is refused. Source of the format: `show_interrupts` in the kernel's kernel/irq/proc.c and
`arch_show_interrupts` of each architecture.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import aiofiles

from kickwatch.errors import ObserveError
from kickwatch.model import Disturbance, Interrupts

READ_ATTEMPTS = 3
MAX_DIGITS = 20  # of a 64-bit counter; the kernel's are mostly of 32 bits
_READ_WHOLE = "read the whole file in one go, from the kernel's own /proc"


class IpiKind(StrEnum):
    """The kinds of IPI that are read, by their x86 labels. On x86 CAL counts TLB shootdowns too."""

    CAL = "CAL"
    TLB = "TLB"
    RES = "RES"


# The description is matched first: arm64 and riscv number their rows (`IPI0:`) and have renumbered them, x86 has
# kept its labels. arm64 flushes remote TLBs without an IPI and has no such row.
_DESCRIPTIONS = {
    "function call interrupts": IpiKind.CAL,
    "tlb shootdowns": IpiKind.TLB,
    "rescheduling interrupts": IpiKind.RES,
}


class TornSampleError(ObserveError):
    """The text changed while it was read (a CPU came or went): read again."""


@dataclass(frozen=True, slots=True)
class InterruptSample:
    """One reading: cumulative counts since boot. `counts[kind]` is as long as `cpus` and in its order."""

    cpus: tuple[int, ...]
    counts: Mapping[IpiKind, tuple[int, ...]]

    def row(self, kind: str) -> dict[int, int] | None:
        """CPU id to count for `CAL`, `TLB` or `RES`; None where the architecture has no such row."""
        counts = self.counts.get(IpiKind(kind))
        return None if counts is None else dict(zip(self.cpus, counts, strict=True))


@dataclass(frozen=True, slots=True)
class Reset:
    """Two samples that cannot be subtracted: the span between them has no interrupt figures."""

    reason: Disturbance
    detail: str


def parse_interrupts(text: str, source: str = "/proc/interrupts") -> InterruptSample:
    """Read the header and the three IPI rows of `text`; every other row is left alone, whatever it looks like.

    `source` is named in errors. Raises ObserveError when the text is no whole /proc/interrupts, TornSampleError when
    an IPI row does not have one count per CPU of the header.
    """
    if not text.endswith("\n"):
        what = "ends in the middle of a line" if text else "is empty"
        raise ObserveError(f"{source} {what}", _READ_WHOLE)
    header, _, body = text.partition("\n")
    if not body:
        raise ObserveError(f"{source} ends after its first line", _READ_WHOLE)
    cpus = _parse_header(header, source)
    described: dict[IpiKind, tuple[int, ...]] = {}
    labelled: dict[IpiKind, tuple[int, ...]] = {}
    for label, counts, description in _ipi_rows(body):
        by_description = _DESCRIPTIONS.get(description)
        if by_description is None and label not in IpiKind.__members__:
            continue
        if len(counts) != len(cpus):
            raise TornSampleError(
                f"{source}: row {label!r} has {len(counts)} counts under a header of {len(cpus)} CPUs",
                "a CPU came or went during the read; read again",
            )
        if by_description is None:
            labelled[IpiKind(label)] = counts
        elif by_description in described:
            raise ObserveError(f"{source} has two rows called {description!r}", "report it, with a copy of the file")
        else:
            described[by_description] = counts
    return InterruptSample(cpus, MappingProxyType(labelled | described))


def _parse_header(header: str, source: str) -> tuple[int, ...]:
    words = header.split()
    ids = [word.removeprefix("CPU") for word in words]
    if not words or not all(word.startswith("CPU") and _is_count(i) for word, i in zip(words, ids, strict=True)):
        raise ObserveError(f"{source} does not begin with the CPUs' names", "give the kernel's own /proc/interrupts")
    cpus = tuple(map(int, ids))
    if len(set(cpus)) != len(cpus):
        raise ObserveError(f"{source} names a CPU twice", "give the kernel's own /proc/interrupts")
    return cpus


def _ipi_rows(body: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Label, counts and description (lower case) of each row that may be wanted.

    Only the two ends of the other rows are looked at, so that hundreds of rows of hundreds of CPUs cost little.
    """
    endings = tuple(_DESCRIPTIONS)
    for line in body.split("\n"):
        # A label may touch its first count (`IPI0:4294967295`): it ends at the colon, not at white space.
        label = line[: line.find(":")].lstrip()
        # A numbered row is a device's interrupt, and its driver may call it anything.
        if label.isdecimal() or not (label in IpiKind.__members__ or line[-40:].rstrip().casefold().endswith(endings)):
            continue
        words = line[line.find(":") + 1 :].split()
        counts = tuple(int(word) for word in takewhile(_is_count, words))
        yield label, counts, " ".join(words[len(counts) :]).casefold()


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS


def rise(before: InterruptSample, after: InterruptSample) -> Interrupts | Reset:
    """Sum over CPUs of what was received between two samples, or the reason why that cannot be said.

    The kernel keeps these counters in 32 bits: one that wraps falls, and is a reset like any other fall.
    """
    if before.cpus != after.cpus:
        gone = sorted(set(before.cpus) - set(after.cpus))
        come = sorted(set(after.cpus) - set(before.cpus))
        return Reset(Disturbance.CPUS_CHANGED, f"CPUs gone: {gone}, CPUs come: {come}")
    if before.counts.keys() != after.counts.keys():
        return Reset(Disturbance.ROWS_CHANGED, f"rows {sorted(before.counts)} became {sorted(after.counts)}")
    for kind, counts in before.counts.items():
        for cpu, old, new in zip(before.cpus, counts, after.counts[kind], strict=True):
            if new < old:
                return Reset(Disturbance.COUNTER_FELL, f"{kind.value} of CPU {cpu} fell from {old} to {new}")
    sums = {kind: sum(after.counts[kind]) - sum(counts) for kind, counts in before.counts.items()}
    return Interrupts(cal=sums.get(IpiKind.CAL), tlb=sums.get(IpiKind.TLB), res=sums.get(IpiKind.RES))


async def read_interrupts(proc: Path) -> InterruptSample:
    """One sample from `proc`/interrupts; a read torn by hotplug is repeated. Raises ObserveError naming the file."""
    path = proc / "interrupts"
    for _ in range(READ_ATTEMPTS - 1):
        with suppress(TornSampleError):
            return parse_interrupts(await _read_whole(path), str(path))
    return parse_interrupts(await _read_whole(path), str(path))


async def _read_whole(path: Path) -> str:
    # Line by line through aiofiles costs ten times as much: every line is a trip to a thread.
    try:
        async with aiofiles.open(path, encoding="ascii", errors="replace") as file:
            return await file.read()
    except OSError as error:
        raise ObserveError(f"{path} cannot be read ({error.strerror})", "see that proc is mounted there") from error
