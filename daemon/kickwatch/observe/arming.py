"""Which probes this kernel allows: the two ladders climbed, and what is lost by each rung that could not be armed."""

import os
from collections.abc import Callable, Sequence
from enum import StrEnum

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung, IpiRung
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.rungs import CONTENTION_VARIABLE, IPI_VARIABLE, climb, requested_rung
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.task_layout import learn_comm_offset


def check_requested_rungs() -> None:
    """Raise ConfigError if the environment asks for a rung that does not exist."""
    for variable, rungs in ((IPI_VARIABLE, IpiRung), (CONTENTION_VARIABLE, ContentionRung)):
        requested_rung(os.environ, variable, rungs)


def arm_requests(
    symbols: Symbols, cpus_online: int, isolated: Sequence[int]
) -> tuple[RequestObserver | None, list[Loss]]:
    """(the best observer of requests that could be armed, None without one; what is lost)."""
    mutex = symbols.address_of("slab_mutex") or 0
    ladder: list[tuple[StrEnum, Callable[[], RequestObserver]]] = [
        (IpiRung.CSD, lambda: CsdObserver.arm(symbols, cpus_online, mutex, isolated)),
        (IpiRung.KPROBE, lambda: KprobeObserver.arm(symbols, cpus_online, mutex, isolated)),
    ]
    observer, refused = climb(ladder, requested_rung(os.environ, IPI_VARIABLE, IpiRung))
    lost = Lost.REQUESTS if observer is None else Lost.BETTER_REQUESTS
    return observer, [Loss.by(lost, error) for error in refused]


def arm_contention(symbols: Symbols) -> tuple[ContentionObserver | None, list[Loss]]:
    """(the best observer of waits that could be armed, None without one; what is lost)."""
    comm_offset, unnamed = _comm_offset()
    ladder: list[tuple[StrEnum, Callable[[], ContentionObserver]]] = [
        (ContentionRung.TRACEPOINT, lambda: ContentionObserver.arm(symbols, comm_offset)),
        (ContentionRung.KPROBE, lambda: MutexObserver.arm(symbols, comm_offset)),
    ]
    observer, refused = climb(ladder, requested_rung(os.environ, CONTENTION_VARIABLE, ContentionRung))
    if observer is None:
        return None, [Loss.by(Lost.WAITS, error) for error in refused]
    return observer, [*(Loss.by(Lost.BETTER_WAITS, error) for error in refused), *unnamed]


def _comm_offset() -> tuple[int, list[Loss]]:
    """(where a task has its name, 0 if that is not known; what is lost then)."""
    try:
        return learn_comm_offset(), []
    except ObserveError as error:
        return 0, [Loss.by(Lost.HOLDERS, error)]
