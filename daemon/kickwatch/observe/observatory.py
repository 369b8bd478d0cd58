"""All observers together: armed once, sampled at the edges of windows; lost rungs are reported with their reasons."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic_ns

from msgspec.structs import replace

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung, Disturbance, Interrupts, IpiRung, Observers, Window, WindowKind
from kickwatch.node import kernel
from kickwatch.node.causes import TRACEPOINTS_FOR_WAITS
from kickwatch.node.diagnosis import Act, Refusal, diagnose
from kickwatch.node.facts import read_facts
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe.containers import ContainerObserver, ContainersRung, arm_members
from kickwatch.observe.contention import ContentionObserver, ContentionSample
from kickwatch.observe.csd import CsdObserver
from kickwatch.observe.interrupts import InterruptSample, Reset, read_interrupts, rise
from kickwatch.observe.ipis import Ipis, IsolatedIpis
from kickwatch.observe.kprobe import KprobeObserver
from kickwatch.observe.losses import Loss, Lost, causes, sentences
from kickwatch.observe.mutex import MutexObserver
from kickwatch.observe.readings import Health
from kickwatch.observe.request_cells import RequestCounts, RequestSample, by_target, fell
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.rungs import CONTENTION_VARIABLE, IPI_VARIABLE, climb, requested_rung
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.task_layout import learn_comm_offset
from kickwatch.process.cancellation import run_shielded

# Two tasks take the mutex in turn for at most 100 ms. Where their CPUs share a thread (QEMU) each turn is short, and in
# one start out of two neither found the mutex taken.
_MEETINGS = 5
_NOT_LISTED = "kallsyms does not list slab_mutex, and no task has waited for it yet"
_LISTED = "a kernel with CONFIG_KALLSYMS_ALL; on this one kickwatch learns the address at the first wait"
_NO_OWNER = "PREEMPT_RT keeps a mutex's owner where only a finished wait shows it, and"
_LEARNT_LATER = "none is needed: kickwatch learns it at the first wait; a restart tries to cause one"


@dataclass(frozen=True)
class Sample:
    """Cumulative figures of all observers at one moment."""

    at_ns: int
    interrupts: InterruptSample
    requests: RequestSample | None
    contention: ContentionSample | None
    ipis: Ipis | None = None
    members: RequestSample | None = None


@dataclass
class Observatory:
    """The armed observers. Construct with `open`; `close` disarms them.

    `isolated_cpus`: the CPUs isolated when the observers were armed, or between the latest two windows. `listed`: CPUs
    that the configuration adds to them, from the next `between_windows` on if it is set later. `containers`, `members`:
    those of passive mode, once `arm_passive` has armed them; `passive`: it was called.

    Work on the probes in a thread is awaited to its end even if the caller is cancelled: a thread cannot be cancelled,
    and `close` frees what it uses.
    """

    host: HostRoots
    cpus_online: int
    symbols: Symbols
    requests: RequestObserver | None = None
    contention: ContentionObserver | None = None
    containers: ContainerObserver | None = None
    members: RequestObserver | None = None
    passive: bool = False
    listed: Sequence[int] = ()
    isolated_cpus: tuple[int, ...] = ()
    _lost: list[Loss] = field(default_factory=list)
    _ipis: IsolatedIpis = field(default_factory=IsolatedIpis)

    @property
    def losses(self) -> list[str]:
        """What cannot be observed now: one sentence a cause."""
        return sentences(self.present_losses)

    @property
    def present_losses(self) -> list[Loss]:
        """What cannot be observed now, each with its cause."""
        counting = self.requests.losses if self.requests is not None else []
        return [*self._lost, *self._unknown, *counting, *self._ipis.losses]

    def lost(self, *kinds: Lost) -> list[Loss]:
        """The present losses of these kinds."""
        return [loss for loss in self.present_losses if loss.lost in kinds]

    @property
    def _unknown(self) -> Iterator[Loss]:
        """What the armed probes do not know of slab_mutex, for now or because they may not read kernel memory."""
        if self.contention is not None and not self.slab_mutex_known:
            yield Loss(Lost.SLAB_MUTEX, _NOT_LISTED, _LISTED)
        for lost, observer in ((Lost.UNDER_MUTEX, self.requests), (Lost.HOLDERS, self.contention)):
            if observer is None:
                continue
            if observer.probe.unread is not None:
                yield Loss.by(lost, observer.probe.unread)
            elif observer.slab_mutex and observer.owner_offset is None:
                yield Loss(lost, *self._why_no_owner())

    def _why_no_owner(self) -> tuple[str, str]:
        if self.contention is not None:
            return f"{_NO_OWNER} no task has waited yet", _LEARNT_LATER
        no_waits = [loss for loss in self._lost if loss.lost is Lost.WAITS]
        return f"{_NO_OWNER} no probe of waits is armed", causes(no_waits)[1] or TRACEPOINTS_FOR_WAITS

    @property
    def slab_mutex_known(self) -> bool:
        """True once the armed probes know its address."""
        return bool(self.slab_mutex)

    @property
    def slab_mutex(self) -> int:
        """Its address; 0 until an armed probe knows it."""
        armed = (observer for observer in (self.requests, self.contention) if observer is not None)
        return next((observer.slab_mutex for observer in armed if observer.slab_mutex), 0)

    @property
    def senders_known(self) -> bool:
        """True while the request probe can tell whether a sender holds slab_mutex."""
        return self.requests is not None and self.requests.owner_known and self.requests.probe.unread is None

    @property
    def ipis_armed(self) -> bool:
        """True while interrupts of every kind to isolated CPUs are counted."""
        return self._ipis.armed

    @property
    def waits_known(self) -> bool:
        """True while waits for slab_mutex are counted: the contention probe is armed and knows the mutex."""
        return self.contention is not None and bool(self.contention.slab_mutex)

    @classmethod
    async def open(cls, host: HostRoots = HOST, listed: Sequence[int] = ()) -> "Observatory":
        """Arm what this kernel allows. `losses` has what it does not allow, each with its reason."""
        symbols = await Symbols.load(host.proc)
        observatory = cls(host, await asyncio.to_thread(kernel.cpus_online, host.sys), symbols, listed=listed)
        observatory.isolated_cpus = await asyncio.to_thread(isolated_cpus, host, listed)
        if symbols.hidden:
            cause = await asyncio.to_thread(lambda: diagnose(Refusal(Act.SYMBOLS), read_facts(host)))
            what = f"{host.proc}/kallsyms shows no addresses: {cause.what}"
            observatory._lost.append(Loss(Lost.NAMES, what, cause.remedy))
        try:
            await observatory._arm()
        except BaseException:
            observatory.close()
            raise
        return observatory

    async def _arm(self) -> None:
        for variable, rungs in ((IPI_VARIABLE, IpiRung), (CONTENTION_VARIABLE, ContentionRung)):
            requested_rung(os.environ, variable, rungs)  # raises before anything is armed, also if nothing will be
        if not self.symbols.hidden:  # without names no request can be attributed, and figures would mean nothing
            await run_shielded(asyncio.to_thread(self._arm_probes))
        if self.contention is not None:
            for _ in range(_MEETINGS):
                if await self.contention.provoke(self.host.proc) and self.contention.owner_offset is not None:
                    break
            await run_shielded(asyncio.to_thread(self._share_slab_mutex))

    def _arm_probes(self) -> None:
        mutex = self.symbols.address_of("slab_mutex") or 0
        ladder: list[tuple[StrEnum, Callable[[], RequestObserver]]] = [
            (IpiRung.CSD, lambda: CsdObserver.arm(self.symbols, self.cpus_online, mutex, self.isolated_cpus)),
            (IpiRung.KPROBE, lambda: KprobeObserver.arm(self.symbols, self.cpus_online, mutex, self.isolated_cpus)),
        ]
        self.requests, lost = climb(ladder, requested_rung(os.environ, IPI_VARIABLE, IpiRung))
        better = Lost.REQUESTS if self.requests is None else Lost.BETTER_REQUESTS
        self._lost += [Loss.by(better, error) for error in lost]
        self._arm_contention()
        self._ipis.follow(self.isolated_cpus)

    def _arm_contention(self) -> None:
        comm_offset, unnamed = _comm_offset()
        ladder: list[tuple[StrEnum, Callable[[], ContentionObserver]]] = [
            (ContentionRung.TRACEPOINT, lambda: ContentionObserver.arm(self.symbols, comm_offset)),
            (ContentionRung.KPROBE, lambda: MutexObserver.arm(self.symbols, comm_offset)),
        ]
        self.contention, lost = climb(ladder, requested_rung(os.environ, CONTENTION_VARIABLE, ContentionRung))
        better = Lost.WAITS if self.contention is None else Lost.BETTER_WAITS
        self._lost += [Loss.by(better, error) for error in lost]
        self._lost += unnamed if self.contention is not None else []

    async def arm_passive(self, own: Collection[str]) -> None:
        """Arm what counts the containers of others, and what they ask for. Safe to call twice.

        `own`: names of cgroups whose containers do not count. What cannot be armed is among the losses.
        """
        self.passive = True
        if self.containers is None:
            await run_shielded(asyncio.to_thread(self._arm_passive, own))

    def leave_passive(self) -> None:
        """Trials are made from now on. The probes stay armed, and nobody takes what they pass on."""
        if self.containers is not None:
            self.containers.leave()

    def _arm_passive(self, own: Collection[str]) -> None:
        self._lost = [loss for loss in self._lost if loss.lost not in {Lost.CONTAINERS, Lost.MEMBERS}]
        try:
            self.containers = ContainerObserver.arm(own)
        except ObserveError as error:
            self._lost += [Loss.by(Lost.CONTAINERS, error), Loss.by(Lost.MEMBERS, error)]
            return
        if self.requests is None:  # what keeps requests from being attributed keeps these as well
            refused = [loss for loss in self._lost if loss.lost in {Lost.REQUESTS, Lost.NAMES}]
            self._lost += [Loss(Lost.MEMBERS, loss.what, loss.remedy) for loss in refused]
            return
        try:
            self.members = arm_members(self.containers, self.requests)
        except ObserveError as error:
            self._lost.append(Loss.by(Lost.MEMBERS, error))

    @property
    def containers_rung(self) -> ContainersRung:
        """How the containers of others are counted."""
        return ContainersRung.TRACEPOINT if self.containers is not None else ContainersRung.NONE

    def _share_slab_mutex(self) -> None:
        """The mutex is learnt from its waiters; the request probe needs it to see which senders hold it."""
        if self.contention is None or self.requests is None:
            return
        address = self.contention.learn()
        offset = self.contention.owner_offset
        if address and (address, offset) != (self.requests.slab_mutex, self.requests.owner_offset):
            self.requests.set_slab_mutex(address, offset)
        if self.members is not None and self.members.slab_mutex != self.requests.slab_mutex:
            self.members.set_slab_mutex(self.requests.slab_mutex, self.requests.owner_offset)

    @property
    def observers(self) -> Observers:
        """The rungs in use."""
        return Observers(
            ipis=self.requests.RUNG if self.requests is not None else IpiRung.COUNTERS,
            contention=self.contention.RUNG if self.contention is not None else ContentionRung.NONE,
        )

    async def sample(self) -> Sample:
        """Read everything; it takes about a millisecond, and `at_ns` is between the counters and the probes.

        Symbols are up to date with the sample, also those of a module that was loaded during the window. Raises
        ObserveError if the kernel refuses any figure: a sample is complete.
        """
        await self._follow_modules()
        interrupts = await read_interrupts(self.host.proc)
        at_ns = monotonic_ns()
        requests = self.requests.read() if self.requests is not None else None
        contention = self.contention.read() if self.contention is not None else None
        members = self.members.read() if self.members is not None else None
        return Sample(at_ns, interrupts, requests, contention, self._ipis.read(), members)

    def try_probes(self) -> None:
        """Read and write the probes' maps. Raises ObserveError if it is not allowed."""
        for observer in (self.requests, self.contention, self._ipis, self.containers, self.members):
            if observer is not None:
                observer.try_maps()

    def creation_broadcasts(self) -> int | None:
        """Broadcasts of the creation path since the probes were armed; None without a probe. Raises ObserveError."""
        return self.requests.creation_broadcasts(self.requests.read()) if self.requests is not None else None

    def request_counts(self) -> RequestCounts | None:
        """What was counted since the probes were armed; None without a probe. Raises ObserveError."""
        return self.requests.counts(self.requests.read()) if self.requests is not None else None

    async def between_windows(self) -> None:
        """Do what would disturb a window: follow modules, CPUs and isolation, learn the mutex, clear full maps."""
        await self._follow_modules()
        await run_shielded(asyncio.to_thread(self._maintain))

    async def _follow_modules(self) -> None:
        """Shielded: if only the symbols were read again, the names would stay out of date for ever."""
        if not self.symbols.hidden:
            await run_shielded(self._renew_names())

    async def _renew_names(self) -> None:
        if await self.symbols.follow_modules():
            for observer in (self.requests, self.contention, self.members):
                if observer is not None:
                    observer.forget_names()

    def _maintain(self) -> None:
        self._share_slab_mutex()
        self.isolated_cpus = isolated_cpus(self.host, self.listed)
        if online := kernel.online(self.host.sys):
            self.cpus_online = len(online)
            for counting in (self.requests, self.members):
                if counting is not None:
                    counting.follow_cpus(online, self.isolated_cpus)
        self._ipis.follow(self.isolated_cpus)
        for observer in (self.requests, self.contention, self.members):
            if observer is not None:
                observer.recycle_if_full()

    def window(self, kind: WindowKind, before: Sample, after: Sample) -> Window:
        """What rose between two samples."""
        interrupts = rise(before.interrupts, after.interrupts)
        window = Window(
            kind=kind,
            duration_ns=after.at_ns - before.at_ns,
            interrupts=Interrupts() if isinstance(interrupts, Reset) else interrupts,
            disturbances=(interrupts.reason,) if isinstance(interrupts, Reset) else (),
            isolated_ipis=after.ipis.isolated - before.ipis.isolated if before.ipis and after.ipis else None,
        )
        return self._with_waits(self._with_cells(window, before, after), before, after)

    def _with_cells(self, window: Window, before: Sample, after: Sample) -> Window:
        if self.requests is None or before.requests is None or after.requests is None:
            return window
        lost, stackless = unseen(before.requests, after.requests)
        recycled = fell(before.requests.totals, after.requests.totals)
        return replace(
            window,
            cells=self.requests.cells(before.requests, after.requests),
            lost_events=window.lost_events + lost,
            stackless_events=window.stackless_events + stackless,
            disturbances=(*window.disturbances, *((Disturbance.RECYCLED,) if recycled else ())),
            per_cpu=by_target(before.requests, after.requests, self.requests.last_online),
        )

    def _with_waits(self, window: Window, before: Sample, after: Sample) -> Window:
        if self.contention is None or before.contention is None or after.contention is None:
            return window
        buckets = zip(before.contention.histogram, after.contention.histogram, strict=True)
        lost, stackless = unseen(before.contention, after.contention)
        return replace(
            window,
            waits=self.contention.waits(before.contention, after.contention),
            wait_histogram_ns=tuple(late - early for early, late in buckets),
            lost_events=window.lost_events + lost,
            stackless_events=window.stackless_events + stackless,
        )

    @staticmethod
    def requests_lost(before: Sample, after: Sample) -> tuple[int, int]:
        """(requests that the IPI probe could not count, requests counted without a stack) between two samples.

        Requests during which the program was already running on that CPU are left out: they come from an interrupt, and
        no interrupt sends to many CPUs. Zeros without a probe.
        """
        if before.requests is None or after.requests is None:
            return 0, 0
        rise = Health(
            *(late - early for early, late in zip(before.requests.health, after.requests.health, strict=True))
        )
        return rise.lost + rise.unknown_kind, rise.stackless

    def close(self) -> None:
        """Disarm everything."""
        for observer in (self.requests, self.contention, self._ipis, self.members, self.containers):
            if observer is not None:
                observer.close()
        self.requests = self.contention = self.containers = self.members = None


def _comm_offset() -> tuple[int, list[Loss]]:
    """(where a task has its name, 0 if that is not known; what is lost then)."""
    try:
        return learn_comm_offset(), []
    except ObserveError as error:
        return 0, [Loss.by(Lost.HOLDERS, error)]


def unseen(before: RequestSample | ContentionSample, after: RequestSample | ContentionSample) -> tuple[int, int]:
    """(events lost, events counted without a stack) between two samples of one probe.

    Lost events are those that found a map full, requests of unknown kind (they are missing from the calls and
    broadcasts), waits whose begin or end was missed, and requests during which the program was already running on that
    CPU. Such misses of the contention program are no loss: contention in an interrupt, or in the program's own maps, is
    that of a spinlock, never of a mutex. A mutex's would show as a wait without a begin.
    """
    rise = Health(*(late - early for early, late in zip(before.health, after.health, strict=True)))
    lost = rise.lost + rise.unknown_kind + rise.unmatched
    if isinstance(before, RequestSample) and isinstance(after, RequestSample):
        lost += after.recursion_misses - before.recursion_misses
    return lost, rise.stackless
