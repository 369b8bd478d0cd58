"""Interrupts sent to isolated CPUs, of every kind: ipis.bpf.c on ipi:ipi_send_cpu and ipi:ipi_send_cpumask (6.4+).

Call-function requests are what kickwatch attributes. An isolated CPU is interrupted by others, too: reschedule
interrupts, and irq_work. Without these tracepoints they are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from kickwatch.errors import ObserveError
from kickwatch.node import kernel
from kickwatch.observe.bpf import BpfObject
from kickwatch.observe.layouts import IPIS, IPIS_CONFIG
from kickwatch.observe.losses import Loss, Lost
from kickwatch.observe.masks import mask_of, mask_words
from kickwatch.observe.readings import INDEX, entry

OBJECT, _PROGRAMS = "ipis", ("ipi_send_cpu", "ipi_send_cpumask")


class Ipis(NamedTuple):
    """Interrupts sent since the probe was armed, cumulative: to isolated CPUs, and to all others."""

    isolated: int
    others: int


@dataclass
class IpiObserver:
    """The armed probe. Construct with `arm`; `close` disarms it."""

    probe: BpfObject
    isolated: Sequence[int]
    possible: Sequence[int]

    @classmethod
    def arm(cls, isolated: Sequence[int], possible: Sequence[int]) -> Self:
        """Load and attach. Raises ObserveError when the kernel has no such tracepoints, or refuses BPF."""
        observer = cls(BpfObject(OBJECT), isolated, possible)
        try:
            observer.follow(isolated)
            for program in _PROGRAMS:
                observer.probe.attach_raw_tracepoint(program, program)
        except BaseException:
            observer.close()
            raise
        return observer

    def follow(self, isolated: Sequence[int]) -> None:
        """These CPUs are isolated from now on. Raises ObserveError."""
        self.isolated = isolated
        configuration = IPIS_CONFIG.pack(mask_words(self.possible), 0, *mask_of(self.isolated))
        self.probe.map("config").put(INDEX.pack(0), configuration)

    def read(self) -> Ipis:
        """The sums over CPUs. Raises ObserveError."""
        cpus = IPIS.packed.iter_unpack(entry(self.probe.map("ipis"), 0))
        return Ipis(*map(sum, zip(*cpus, strict=True)))

    def close(self) -> None:
        """Disarm and free."""
        self.probe.close()


class IsolatedIpis:
    """The probe, armed only while a CPU is isolated: elsewhere it would cost, and count nothing."""

    def __init__(self) -> None:
        self._armed: IpiObserver | None = None
        self._refused: Loss | None = None
        self._refused_for: Sequence[int] = ()

    @property
    def losses(self) -> list[Loss]:
        """Why interrupts to isolated CPUs are not counted; empty while they are, and where no CPU is isolated."""
        return [self._refused] if self._refused is not None else []

    @property
    def armed(self) -> bool:
        """True while they are counted."""
        return self._armed is not None

    def follow(self, isolated: Sequence[int]) -> None:
        """These CPUs are isolated from now on. Only between windows: arming interrupts every CPU.

        The daemon keeps no capability to arm a probe, so CPUs that are isolated after its start are a loss.
        """
        if self._refused is not None and isolated == self._refused_for:
            return  # it would be refused again
        self._refused = None
        if self._armed is not None and isolated:
            self._armed.follow(isolated)
        elif self._armed is not None:
            self.close()
        elif isolated:
            try:
                self._armed = IpiObserver.arm(isolated, kernel.possible())
            except ObserveError as error:
                self._refused, self._refused_for = Loss.by(Lost.OTHER_INTERRUPTS, error), isolated

    def read(self) -> Ipis | None:
        """Cumulative; None where nothing is armed. Raises ObserveError."""
        return self._armed.read() if self._armed is not None else None

    def try_maps(self) -> None:
        """Do everything that is done with the maps while the probe is armed. Raises ObserveError if it is refused."""
        if self._armed is not None:
            self._armed.follow(self._armed.isolated)
            self._armed.read()

    def close(self) -> None:
        """Disarm and free. Safe to call twice."""
        if self._armed is not None:
            self._armed.close()
        self._armed = None
