"""From windows to figures: merging windows, totals per container, rates against quiet. Pure."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from kickwatch.model import (
    CanaryBatch,
    Cell,
    Container,
    ContentionRung,
    Interrupts,
    IpiRung,
    MutexWait,
    Origin,
    Trial,
    Window,
)

_CONTAINERS_PER_BROADCAST = (3, 2)


def merge_windows(windows: Sequence[Window]) -> Window:
    """Several spans of one kind as one window (a quiet window may be extended to the churn window's length)."""
    first, *rest = windows
    for window in rest:
        first = _merge_two(first, window)
    return first


def _merge_two(one: Window, other: Window) -> Window:
    histograms = [one.wait_histogram_ns, other.wait_histogram_ns]
    width = max(map(len, histograms))
    padded = [(*histogram, *(0,) * (width - len(histogram))) for histogram in histograms]
    return Window(
        kind=one.kind,
        duration_ns=one.duration_ns + other.duration_ns,
        interrupts=_add_interrupts(one.interrupts, other.interrupts),
        cells=merge_cells((*one.cells, *other.cells)),
        waits=merge_waits((*one.waits, *other.waits)),
        wait_histogram_ns=tuple(a + b for a, b in zip(*padded, strict=True)),
        lost_events=one.lost_events + other.lost_events,
        lost_requests=_add(one.lost_requests, other.lost_requests),
        lost_waits=_add(one.lost_waits, other.lost_waits),
        stackless_events=one.stackless_events + other.stackless_events,
        disturbances=tuple(dict.fromkeys((*one.disturbances, *other.disturbances))),
        per_cpu=_add_per_cpu(one.per_cpu, other.per_cpu),
        isolated_ipis=_add(one.isolated_ipis, other.isolated_ipis),
    )


def _add(one: int | None, other: int | None) -> int | None:
    """None where one of them is not known."""
    return None if one is None or other is None else one + other


def _add_per_cpu(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if one is None or other is None:
        return None
    return tuple(a + b for a, b in zip_longest(one, other, fillvalue=0))


def _add_interrupts(one: Interrupts, other: Interrupts) -> Interrupts:
    return Interrupts(cal=_add(one.cal, other.cal), tlb=_add(one.tlb, other.tlb), res=_add(one.res, other.res))


def merge_cells(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells of the same (reason, func, origin, path) added up, largest first, with the stack of the first one.

    A stack that only patched kernel text gives way to one that did not: it need not count (`detect.passive`).
    """
    merged: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        so_far = merged.get(cell.identity)
        merged[cell.identity] = cell if so_far is None else _add_cells(so_far, cell)
    return tuple(sorted(merged.values(), key=lambda cell: -cell.requests))


def _add_cells(one: Cell, other: Cell) -> Cell:
    return Cell(
        reason=one.reason,
        func=one.func,
        origin=one.origin,
        path=one.path,
        requests=one.requests + other.requests,
        calls=one.calls + other.calls,
        broadcasts=one.broadcasts + other.broadcasts,
        singles=one.single_requests + other.single_requests,
        patches=_add(one.patches, other.patches),
        isolated=_add(one.isolated, other.isolated),
        isolated_cpus=tuple(sorted({*one.isolated_cpus, *other.isolated_cpus})),
        under_slab_mutex=one.under_slab_mutex + other.under_slab_mutex,
        stack=_stack_of(one, other),
    )


def _stack_of(one: Cell, other: Cell) -> tuple[str, ...]:
    if one.stack and other.stack and _only_patched(one) and not _only_patched(other):
        return other.stack
    return one.stack or other.stack


def _only_patched(cell: Cell) -> bool:
    return cell.broadcasts > 0 and cell.patches == cell.broadcasts


def merge_waits(waits: Iterable[MutexWait]) -> tuple[MutexWait, ...]:
    """Waits of the same stack and holder added up, longest first."""
    merged: dict[tuple[object, ...], MutexWait] = {}
    for wait in waits:
        key = (wait.stack, wait.holder)
        so_far = merged.get(key)
        if so_far is not None:
            merged[key] = MutexWait(
                waiter=wait.waiter,
                holder=wait.holder,
                waits=so_far.waits + wait.waits,
                wait_ns=so_far.wait_ns + wait.wait_ns,
                max_wait_ns=max(so_far.max_wait_ns, wait.max_wait_ns),
                origin=wait.origin,
                path=wait.path,
                stack=wait.stack,
            )
        else:
            merged[key] = wait
    return tuple(sorted(merged.values(), key=lambda wait: -wait.wait_ns))


def counted(trial: Trial) -> list[Container]:
    """The containers that did not fail: those that count."""
    return [container for container in trial.containers if not container.failure]


def lived(trial: Trial) -> int:
    """The containers that lived in its churn window: ours that count, or in passive mode those of others."""
    return len(counted(trial)) + sum(look.containers for look in trial.looks)


def creation_broadcasts(cells: Iterable[Cell]) -> int:
    """Broadcasts of the creation path, by whichever task."""
    return sum(cell.broadcasts for cell in cells if cell.on_creation_path)


def waits_known(trial: Trial) -> bool:
    """Whether waits for slab_mutex were observed: a probe was armed, and the address of the mutex was known.

    No control tests that probe. Where both are kprobes, what silences those of one silences those of the other.
    """
    rungs = trial.observers
    both = rungs.contention is ContentionRung.KPROBE and rungs.ipis is IpiRung.KPROBE
    silenced = both and trial.control is not None and not trial.control.passed
    return rungs.contention is not ContentionRung.NONE and trial.slab_mutex_known and not silenced


def known_waits(trial: Trial) -> tuple[MutexWait, ...] | None:
    """The waits in its churn window; None where they were not observed, or where all that there were may be lost."""
    waits = trial.churn.waits
    return waits if waits_known(trial) and (waits or not trial.churn.lost_waits) else None


def attributed(trial: Trial) -> bool:
    """Whether the cells show what the kernel sent. If not, they are no figures, and their absence is no zero.

    A probe that failed its positive control proves nothing. Nor does one that saw containers live without a single
    request.
    """
    looked = trial.observers.ipis is not IpiRung.COUNTERS and (trial.control is None or trial.control.passed)
    return looked and (bool(trial.churn.cells) or not lived(trial))


def broadcasts_may_be_lost(trial: Trial) -> bool:
    """Whether the probe lost so much that it may hide what a verdict excludes or convicts of.

    A full map loses what is new, and that is what a fault would be: so what was lost is held against the containers. Of
    older records, and of requests during an interrupt, only their share in all requests is known. In passive mode only
    a look knows which broadcasts count, so what was seen is left out.
    """
    churn = trial.churn
    many = churn.lost_events > total_requests(churn.cells) // 100
    seen = 0 if trial.looks else creation_broadcasts(churn.cells)
    return many or loss_hides(seen, churn.lost_requests or 0, lived(trial))


def loss_hides(seen: int, lost: int, containers: int) -> bool:
    """Whether `seen` broadcasts are too few for a fault, and with the `lost` requests they may be enough.

    Enough is one in every third container, which `quiet` excludes, or in every second, which convicts.
    """
    if not lost or not containers:
        return lost > 0
    return any(each * seen < containers <= each * (seen + lost) for each in _CONTAINERS_PER_BROADCAST)


def zero_is_certain(batch: CanaryBatch) -> bool:
    """Whether a canary batch in which no creation-path broadcast was seen really had none.

    A lost request may have been one, and so may a broadcast whose stack gave no origin.
    """
    nameless = any(cell.broadcasts and cell.origin is Origin.UNKNOWN for cell in batch.cells)
    return not batch.lost_events and not (batch.stackless_events and nameless)


def under_slab_mutex_known(trial: Trial) -> bool:
    """Whether a request sent while holding slab_mutex was marked as such: the IPI probe, too, knew the mutex.

    Either all armed probes know it or none does: from kallsyms, or because one learnt it and passed it to the other.
    But under kernel lockdown no probe may read its owner, and on PREEMPT_RT a wait must first show where that is.
    """
    return attributed(trial) and trial.slab_mutex_known and trial.senders_known


def known_creation_broadcasts(trial: Trial) -> int | None:
    """Broadcasts of the creation path in the churn window; None where nothing attributed them, or all may be lost."""
    found = creation_broadcasts(trial.churn.cells)
    return found if attributed(trial) and (found or not broadcasts_may_be_lost(trial)) else None


def longest_wait_ns(waits: Iterable[MutexWait]) -> int | None:
    """The longest wait; 0 without any wait, None where it is not known.

    A record has the longest wait since the probe was armed if that rose in the record's window, and 0 otherwise. In the
    second case the window's own longest wait is known only of one wait: it is its time. Of several it is not known,
    unless it is certainly shorter than one that is.
    """
    found = [(wait.max_wait_ns or (wait.wait_ns if wait.waits == 1 else 0), wait.wait_ns) for wait in waits]
    longest = max((most for most, _ in found), default=0)
    hidden = max((total for most, total in found if not most), default=0)
    return longest if hidden <= longest else None


def total_requests(cells: Iterable[Cell]) -> int:
    """All requests, whatever their reason."""
    return sum(cell.requests for cell in cells)


def churn_by_quiet(trial: Trial) -> float:
    """The churn window's length over the quiet window's; 0 without a quiet window."""
    return trial.churn.duration_ns / trial.quiet.duration_ns if trial.quiet.duration_ns else 0.0


def quiet_rate_hz(trial: Trial, events: float) -> float:
    """Events of the quiet window per second."""
    return events / (trial.quiet.duration_ns / 1e9) if trial.quiet.duration_ns else 0.0


def above_quiet(trial: Trial, churn_events: float, quiet_events: float) -> float:
    """Events of the churn window beyond those that the quiet window's rate explains. Noise can make it negative."""
    return churn_events - quiet_rate_hz(trial, quiet_events) * trial.churn.duration_ns / 1e9


def total_waits(waits: Iterable[MutexWait]) -> tuple[int, int]:
    """(waits, wait_ns) added up."""
    count = wait_ns = 0
    for wait in waits:
        count, wait_ns = count + wait.waits, wait_ns + wait.wait_ns
    return count, wait_ns


def per(amount: float, units: int) -> float:
    """Rounded for people."""
    return round(amount / units, 3) if units else 0.0


def milliseconds(duration_ns: int | None) -> float | None:
    """Rounded to the microsecond; None stays None."""
    return None if duration_ns is None else round(duration_ns / 1e6, 3)
