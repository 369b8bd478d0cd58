"""Opens the observers for `doctor`, first with the service's capabilities: root has more, and may see more."""

import asyncio
import resource
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from kickwatch.errors import ObserveError
from kickwatch.model import ContentionRung, IpiRung, Observers
from kickwatch.node.privileges import SERVICE, LinuxCapability, restrict
from kickwatch.node.service_unit import UNIT, has_more_for_probes, service_capabilities
from kickwatch.observe.losses import Loss, Lost, causes
from kickwatch.observe.observatory import Observatory
from kickwatch.process.cancellation import run_shielded

_DROP_IN = "for the service the drop-in sys-admin.conf grants it (systemd.md)"
# No capability changes these: what is not learnt yet, and what the machine is too large for.
_OF_THE_NODE = {Lost.UNDER_MUTEX, Lost.HOLDERS, Lost.SLAB_MUTEX, Lost.FAR_REQUESTS, Lost.TARGETS}
_BY_CAPABILITY = tuple(lost for lost in Lost if lost not in _OF_THE_NODE)
_NOTHING = Observers(ipis=IpiRung.COUNTERS, contention=ContentionRung.NONE)


@dataclass(frozen=True)
class ServiceProbes:
    """What the service can arm on this node. `lost`: what it cannot observe although root can."""

    capabilities: frozenset[LinuxCapability]
    observers: Observers
    lost: tuple[Loss, ...] = ()

    @property
    def detail(self) -> str:
        """What was found, in words."""
        names = " ".join(f"CAP_{one.name}" for one in LinuxCapability if one in self.capabilities) or "no capability"
        if not self.lost:
            return f"IPIs {self.observers.ipis}, contention {self.observers.contention}, with {names} alone ({UNIT})"
        kinds = ", ".join(dict.fromkeys(loss.lost for loss in self.lost))
        return f"with {names} alone ({UNIT}): {causes(self.lost)[0]}; lost: {kinds}"

    @property
    def remedy(self) -> str:
        """What removes the loss. The drop-in grants CAP_SYS_ADMIN: it helps where nothing else is missing."""
        if not self.lost:
            return ""
        remedy = causes(self.lost)[1]
        helps = self.capabilities >= SERVICE and LinuxCapability.SYS_ADMIN not in self.capabilities
        return f"{remedy}; {_DROP_IN}" if helps else remedy


async def open_observatory(
    listed: Sequence[int], own: Collection[str] | None = None
) -> tuple[Observatory, ServiceProbes | None]:
    """(the armed observers; what the service can arm, None without systemd or if this process can do no more than it).

    Arming interrupts every CPU, so what the service could arm is used, and armed again only if root may see more.
    `own`: arm what passive mode needs, too; the cgroups whose containers do not count. Raises ObserveError.
    """
    capabilities = await asyncio.to_thread(service_capabilities)
    if capabilities is None or not has_more_for_probes(capabilities):
        return await _open(listed, own), None
    observers, lost = _NOTHING, []
    try:
        observatory = await _open_as_service(capabilities, listed, own)
    except ObserveError as error:  # without its symbols
        lost.append(Loss.by(Lost.NAMES, error))
    else:
        observers = observatory.observers
        if _complete(observatory):
            return observatory, ServiceProbes(capabilities, observers)
        lost += observatory.lost(*_BY_CAPABILITY)
        observatory.close()
    observatory = await _open(listed, own)
    more = _lost_to_service(lost, observatory.lost(*_BY_CAPABILITY))
    if observatory.requests is None and not more:  # root is as blind
        return observatory, None
    return observatory, ServiceProbes(capabilities, observers, more)


async def _open(listed: Sequence[int], own: Collection[str] | None) -> Observatory:
    observatory = await Observatory.open(listed=listed)
    try:
        if own is not None:
            await observatory.arm_passive(own)
    except BaseException:
        observatory.close()
        raise
    return observatory


async def _open_as_service(
    capabilities: Collection[LinuxCapability], listed: Sequence[int], own: Collection[str] | None
) -> Observatory:
    """The observers, armed by a thread that has only `capabilities`, and is not used again."""
    opened: list[Observatory] = []

    def work() -> None:
        with _unlimited_memory_locks():
            restrict(capabilities)
            opened.append(asyncio.run(_open(listed, own)))  # the threads of this loop have this thread's capabilities

    thread = ThreadPoolExecutor(1, thread_name_prefix="as-service")
    try:
        await run_shielded(asyncio.get_running_loop().run_in_executor(thread, work))
    except BaseException:
        for observatory in opened:
            observatory.close()
        raise
    finally:
        thread.shutdown(wait=False)  # its work is done
    return opened[0]


@contextmanager
def _unlimited_memory_locks() -> Iterator[None]:
    """As LimitMEMLOCK=infinity of the unit: before 5.11 BPF maps count, and only CAP_SYS_RESOURCE raises the limit."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def _complete(observatory: Observatory) -> bool:
    """True if more capabilities would arm nothing else."""
    if observatory.requests is None or observatory.contention is None:
        return False
    return not observatory.passive or observatory.members is not None


def _lost_to_service(service: Sequence[Loss], root: Sequence[Loss]) -> tuple[Loss, ...]:
    """What the service loses and root does not, with the causes that are not root's as well."""
    kinds, known = {loss.lost for loss in root}, {loss.what for loss in root}
    lost = tuple(loss for loss in service if loss.lost not in kinds)
    return tuple(loss for loss in lost if loss.what not in known) or lost
