"""All observers behind one door: armed once, sampled at window edges, every rung that was lost said aloud."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns

from msgspec.structs import replace

from kickwatch.errors import ObserveError
from kickwatch.model import Interrupts, Observers, Window
from kickwatch.node import kernel
from kickwatch.observe.contention import ContentionObserver, ContentionSample, learn_comm_offset
from kickwatch.observe.csd import CsdObserver, CsdSample
from kickwatch.observe.interrupts import InterruptSample, Reset, read_interrupts, rise
from kickwatch.observe.symbols import Symbols


@dataclass(frozen=True)
class Sample:
    """Cumulative figures of every observer at one moment."""

    at_ns: int
    interrupts: InterruptSample
    csd: CsdSample | None
    contention: ContentionSample | None


@dataclass
class Observatory:
    """The armed observers. Construct with `open`; `close` disarms them."""

    proc: Path
    cpus_online: int
    symbols: Symbols
    csd: CsdObserver | None = None
    contention: ContentionObserver | None = None
    losses: list[str] = field(default_factory=list)

    @classmethod
    async def open(cls, proc: Path = Path("/proc")) -> "Observatory":
        """Arm what this kernel allows. What it does not allow is in `losses`, each with its reason."""
        symbols = await Symbols.load(proc)
        observatory = cls(proc, await asyncio.to_thread(kernel.cpus_online), symbols)
        if symbols.hidden:
            observatory.losses.append(
                f"{proc}/kallsyms shows no addresses: needs CAP_SYSLOG and ProtectKernelLogs=no; reasons have no names"
            )
        try:
            await observatory._arm()
        except BaseException:
            observatory.close()
            raise
        return observatory

    async def _arm(self) -> None:
        if not self.symbols.hidden:  # without names no request could be attributed: that is blindness, not a figure
            await asyncio.to_thread(self._arm_probes)
        if self.contention is not None:
            await self.contention.provoke(self.proc)
            self._share_slab_mutex()
            if not self.contention.slab_mutex:
                self.losses.append("slab_mutex not found yet: no data symbols in kallsyms, nobody waited for it so far")

    def _arm_probes(self) -> None:
        try:
            self.csd = CsdObserver.arm(self.symbols, self.cpus_online, self.symbols.address_of("slab_mutex") or 0)
        except ObserveError as error:
            self.losses.append(str(error))
        try:
            self.contention = ContentionObserver.arm(self.symbols, learn_comm_offset())
        except ObserveError as error:
            self.losses.append(str(error))

    def _share_slab_mutex(self) -> None:
        """The mutex is learnt from its waiters; the csd probe needs it to tell who sends while holding it."""
        if self.contention is None or self.csd is None:
            return
        address = self.contention.learn()
        if address and not self.csd.slab_mutex:
            self.csd.know_slab_mutex(address)

    @property
    def observers(self) -> Observers:
        """The rungs in use."""
        return Observers(
            ipis="csd" if self.csd is not None else "counters",
            contention="tracepoint" if self.contention is not None else "none",
        )

    async def sample(self) -> Sample:
        """Read everything. The moment is that between the counters and the probes, about a millisecond wide."""
        interrupts = await read_interrupts(self.proc)
        at_ns = monotonic_ns()
        csd = self.csd.read() if self.csd is not None else None
        contention = self.contention.read() if self.contention is not None else None
        return Sample(at_ns, interrupts, csd, contention)

    def creation_broadcasts(self) -> int | None:
        """Broadcasts of the creation path since the probes were armed; None when no probe tells."""
        return self.csd.creation_broadcasts(self.csd.read()) if self.csd is not None else None

    async def between_windows(self) -> None:
        """Housekeeping that no window may hold: learn the mutex, follow CPU hotplug, recycle full maps."""
        self._share_slab_mutex()
        online = await asyncio.to_thread(kernel.cpus_online)
        if self.csd is not None:
            if online != self.cpus_online:
                self.cpus_online = self.csd.cpus_online = online
                self.csd.configure()
            self.csd.recycle_if_full()

    def window(self, kind: str, before: Sample, after: Sample) -> Window:
        """What rose between two samples."""
        interrupts = rise(before.interrupts, after.interrupts)
        window = Window(
            kind=kind,
            duration_ns=after.at_ns - before.at_ns,
            interrupts=Interrupts() if isinstance(interrupts, Reset) else interrupts,
        )
        return self._with_waits(self._with_cells(window, before, after), before, after)

    def _with_cells(self, window: Window, before: Sample, after: Sample) -> Window:
        if self.csd is None or before.csd is None or after.csd is None:
            return window
        health = [a - b for a, b in zip(after.csd.health, before.csd.health, strict=True)]
        misses = after.csd.recursion_misses - before.csd.recursion_misses
        cells = self.csd.cells(before.csd, after.csd)
        return replace(window, cells=cells, lost_events=health[0] + misses, stackless_events=health[1])

    def _with_waits(self, window: Window, before: Sample, after: Sample) -> Window:
        if self.contention is None or before.contention is None or after.contention is None:
            return window
        buckets = zip(before.contention.histogram, after.contention.histogram, strict=True)
        return replace(
            window,
            waits=self.contention.waits(before.contention, after.contention),
            wait_histogram_ns=tuple(late - early for early, late in buckets),
        )

    def close(self) -> None:
        """Disarm everything."""
        for observer in (self.csd, self.contention):
            if observer is not None:
                observer.close()
        self.csd = self.contention = None
