"""What a trial needs from outside: settings, observers, a workload and a clock.

`trial` is written against these, so unit tests run it on a virtual clock without an engine and without a kernel.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kickwatch.experiment.kmem_accounting import KmemFacts
from kickwatch.model import Container, Control, Node, Observers, Window, WindowKind
from kickwatch.node.continuity import Moment
from kickwatch.observe.windows import Sample


@dataclass(frozen=True)
class TrialSettings:
    """One trial. `window_s`: the minimum length of a window. `settle_s`: the longest wait for asynchronous work.

    `concurrency` and `hold_s` (how long each container is held) are used to estimate the length of the churn window.
    `canary_memcgs` 0: no canary batch. `paired`: pairs of halves instead of two windows; `life_s`: how long a life or a
    burst of `concurrency` lives is expected to take.
    """

    trial_id: str
    seed: int
    containers: int
    window_s: float
    settle_s: float
    canary_memcgs: int = 0
    concurrency: int = 1
    hold_s: float = 0.0
    paired: bool = False
    life_s: float = 0.35


class Clock(Protocol):
    """What a trial uses of time."""

    def monotonic_s(self) -> float:
        """Seconds of CLOCK_MONOTONIC, the clock of `Sample.at_ns`."""

    def unix_s(self) -> float:
        """Seconds since 1970, for the record."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The clocks of this machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TrialObservers(Protocol):
    """The armed observers. Reading them raises ObserveError if the kernel refuses."""

    @property
    def rungs(self) -> Observers:
        """The armed rungs."""

    @property
    def control(self) -> Control:
        """The latest positive control."""

    @property
    def slab_mutex_known(self) -> bool:
        """True if the armed probes know the address of slab_mutex."""

    @property
    def senders_known(self) -> bool:
        """True if the armed probe can tell whether a sender holds slab_mutex."""

    @property
    def isolated_cpus(self) -> tuple[int, ...]:
        """CPUs that are isolated from ordinary work; requests to them are counted."""

    @property
    def losses(self) -> Sequence[str]:
        """What cannot be observed, each with its reason."""

    async def sample(self) -> Sample:
        """Cumulative figures of all observers, now."""

    def window(self, kind: WindowKind, before: Sample, after: Sample) -> Window:
        """What rose between two samples."""

    def requests_lost(self, before: Sample, after: Sample) -> tuple[int, int]:
        """Requests between two samples that were not counted, and requests that were counted without a stack."""

    def creation_broadcasts(self) -> int | None:
        """Broadcasts of the creation path since the probes were armed. None without a probe."""

    async def between_windows(self) -> None:
        """Housekeeping that must not happen during a window."""


class TrialWorkload(Protocol):
    """The containers and the memory cgroups of one trial, and facts about the node they run on."""

    @property
    def begun(self) -> int:
        """Containers requested from the engine so far. Also valid after `churn` failed or was cancelled."""

    @property
    def notes(self) -> Sequence[str]:
        """Remarks for the record, complete once `churn` has returned."""

    async def restore(self) -> None:
        """Restore what other processes have removed since the start. Raises KickwatchError or OSError."""

    async def churn(self, containers: int) -> tuple[Container, ...]:
        """Create, start and remove that many more. None is left, even if the churn fails or is cancelled."""

    async def create_batch(self, memcgs: int) -> None:
        """Create a canary batch. If it fails or is cancelled, part of the batch may exist."""

    async def remove_batch(self) -> None:
        """Remove the canary batch. No error if there is none."""

    async def reclaim(self) -> None:
        """Reclaim the memory of removed containers, so that dying memcgs do not pile up."""

    async def moment(self) -> Moment:
        """What must not change during the trial."""

    async def node(self) -> Node:
        """Where the trial runs."""

    async def kmem_facts(self) -> KmemFacts:
        """What the node says about kernel memory accounting."""
