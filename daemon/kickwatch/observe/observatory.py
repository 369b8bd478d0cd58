"""All observers together: armed once, sampled at the edges of windows; lost rungs are reported with their reasons."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import monotonic_ns

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung, IpiRung, Observers, Window, WindowKind
from kickwatch.node import kernel
from kickwatch.node.diagnosis import Act, Refusal, diagnose
from kickwatch.node.facts import read_facts
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.observe.arming import arm_contention, arm_requests, check_requested_rungs
from kickwatch.observe.containers import ContainerObserver, ContainersRung, arm_members
from kickwatch.observe.contention import ContentionObserver
from kickwatch.observe.interrupts import read_interrupts
from kickwatch.observe.ipis import IsolatedIpis
from kickwatch.observe.losses import Loss, Lost, sentences
from kickwatch.observe.request_cells import RequestCounts
from kickwatch.observe.requests import RequestObserver
from kickwatch.observe.slab_mutex_losses import slab_mutex_losses
from kickwatch.observe.symbols import Symbols
from kickwatch.observe.windows import Sample, window_between
from kickwatch.process.cancellation import run_shielded

# Two tasks take the mutex in turn for at most 100 ms. Where their CPUs share a thread (QEMU) each turn is short, and in
# one start out of two neither found the mutex taken.
_MEETINGS = 5


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
        unknown = slab_mutex_losses(self.requests, self.contention, self._lost)
        return [*self._lost, *unknown, *counting, *self._ipis.losses]

    def lost(self, *kinds: Lost) -> list[Loss]:
        """The present losses of these kinds."""
        return [loss for loss in self.present_losses if loss.lost in kinds]

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
        check_requested_rungs()  # before anything is armed, also if nothing will be
        if not self.symbols.hidden:  # without names no request can be attributed, and figures would mean nothing
            await run_shielded(asyncio.to_thread(self._arm_probes))
        if self.contention is not None:
            for _ in range(_MEETINGS):
                if await self.contention.provoke(self.host.proc) and self.contention.owner_offset is not None:
                    break
            await run_shielded(asyncio.to_thread(self._share_slab_mutex))

    def _arm_probes(self) -> None:
        self.requests, lost = arm_requests(self.symbols, self.cpus_online, self.isolated_cpus)
        self._lost += lost
        self.contention, lost = arm_contention(self.symbols)
        self._lost += lost
        self._ipis.follow(self.isolated_cpus)

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
        return window_between(kind, before, after, self.requests, self.contention)

    def close(self) -> None:
        """Disarm everything."""
        for observer in (self.requests, self.contention, self._ipis, self.members, self.containers):
            if observer is not None:
                observer.close()
        self.requests = self.contention = self.containers = self.members = None
