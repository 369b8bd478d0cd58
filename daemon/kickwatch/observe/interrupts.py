"""Reads the IPI rows of /proc/interrupts: what every CPU received, by kind, and the rise between two readings.

The counters tell no cause. They are a second source to check the attributed figures against, and the only one where
BPF is refused. The format is that of `show_interrupts` in the kernel's kernel/irq/proc.c and of each architecture's
`arch_show_interrupts`.
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
MAX_DIGITS = 20  # of a 64-bit counter; most of the kernel's have 32 bits
_READ_WHOLE = "read the whole file at once, from the kernel's own /proc"


class IpiKind(StrEnum):
    """The kinds of IPI that are read, by their labels on x86. On x86 CAL also counts TLB shootdowns."""

    CAL = "CAL"
    TLB = "TLB"
    RES = "RES"


# The description is compared first: arm64 and riscv number their rows (`IPI0:`) and have renumbered them; on x86 the
# labels have never changed. arm64 flushes remote TLBs without an IPI and has no such row.
_DESCRIPTIONS = {
    "function call interrupts": IpiKind.CAL,
    "tlb shootdowns": IpiKind.TLB,
    "rescheduling interrupts": IpiKind.RES,
}


class TornSampleError(ObserveError):
    """The text changed while it was read, since a CPU came or went: read it again."""


@dataclass(frozen=True, slots=True)
class InterruptSample:
    """One reading: cumulative counts since boot. `counts[kind]` has one count per CPU, in the order of `cpus`."""

    cpus: tuple[int, ...]
    counts: Mapping[IpiKind, tuple[int, ...]]

    def row(self, kind: str) -> dict[int, int] | None:
        """CPU id to count for `CAL`, `TLB` or `RES`; None if the architecture has no such row."""
        counts = self.counts.get(IpiKind(kind))
        return None if counts is None else dict(zip(self.cpus, counts, strict=True))


@dataclass(frozen=True, slots=True)
class Reset:
    """Two samples that cannot be subtracted: there are no interrupt figures for the time between them."""

    reason: Disturbance
    detail: str


def parse_interrupts(text: str, source: str = "/proc/interrupts") -> InterruptSample:
    """Read the header and the three IPI rows of `text`; every other row is ignored, whatever its form.

    `source` is named in errors. Raises ObserveError if the text is not a whole /proc/interrupts, TornSampleError if an
    IPI row does not have one count per CPU of the header.
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
            raise ObserveError(f"{source} has two rows named {description!r}", "report it, with a copy of the file")
        else:
            described[by_description] = counts
    return InterruptSample(cpus, MappingProxyType(labelled | described))


def _parse_header(header: str, source: str) -> tuple[int, ...]:
    words = header.split()
    ids = [word.removeprefix("CPU") for word in words]
    if not words or not all(word.startswith("CPU") and _is_count(i) for word, i in zip(words, ids, strict=True)):
        raise ObserveError(f"{source} does not begin with the names of CPUs", "use the kernel's own /proc/interrupts")
    cpus = tuple(map(int, ids))
    if len(set(cpus)) != len(cpus):
        raise ObserveError(f"{source} names a CPU twice", "use the kernel's own /proc/interrupts")
    return cpus


def _ipi_rows(body: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Label, counts and description (lower case) of each row that may be an IPI's.

    Of the other rows only both ends are looked at, since there may be hundreds of rows for hundreds of CPUs.
    """
    endings = tuple(_DESCRIPTIONS)
    for line in body.split("\n"):
        # There may be no space between label and first count (`IPI0:4294967295`): the label ends at the colon.
        label = line[: line.find(":")].lstrip()
        # A numbered row is a device's interrupt, and its driver may give it any description.
        if label.isdecimal() or not (label in IpiKind.__members__ or line[-40:].rstrip().casefold().endswith(endings)):
            continue
        words = line[line.find(":") + 1 :].split()
        counts = tuple(int(word) for word in takewhile(_is_count, words))
        yield label, counts, " ".join(words[len(counts) :]).casefold()


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS


def rise(before: InterruptSample, after: InterruptSample) -> Interrupts | Reset:
    """Sum over CPUs of what was received between two samples, or the reason why it is not known.

    The kernel's counters have 32 bits: one that wraps falls, and is a reset like any other fall.
    """
    if before.cpus != after.cpus:
        gone = sorted(set(before.cpus) - set(after.cpus))
        come = sorted(set(after.cpus) - set(before.cpus))
        return Reset(Disturbance.CPUS_CHANGED, f"CPUs removed: {gone}, CPUs added: {come}")
    if before.counts.keys() != after.counts.keys():
        return Reset(Disturbance.ROWS_CHANGED, f"rows were {sorted(before.counts)}, are {sorted(after.counts)}")
    for kind, counts in before.counts.items():
        for cpu, old, new in zip(before.cpus, counts, after.counts[kind], strict=True):
            if new < old:
                return Reset(Disturbance.COUNTER_FELL, f"{kind.value} of CPU {cpu} fell from {old} to {new}")
    sums = {kind: sum(after.counts[kind]) - sum(counts) for kind, counts in before.counts.items()}
    return Interrupts(cal=sums.get(IpiKind.CAL), tlb=sums.get(IpiKind.TLB), res=sums.get(IpiKind.RES))


async def read_interrupts(proc: Path) -> InterruptSample:
    """One sample from `proc`/interrupts; a read torn by hotplug is repeated. Raises ObserveError with the path."""
    path = proc / "interrupts"
    for _ in range(READ_ATTEMPTS - 1):
        with suppress(TornSampleError):
            return parse_interrupts(await _read_whole(path), str(path))
    return parse_interrupts(await _read_whole(path), str(path))


async def _read_whole(path: Path) -> str:
    # Reading line by line would take ten times as long: with aiofiles each line is read in a thread.
    try:
        async with aiofiles.open(path, encoding="ascii", errors="replace") as file:
            return await file.read()
    except OSError as error:
        raise ObserveError(f"{path} cannot be read ({error.strerror})", "check that proc is mounted there") from error
