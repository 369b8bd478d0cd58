"""One container of the configured kind, started and removed at once, for `kickwatch doctor`.

It shows what no look at the node shows: a sandbox that hides its processes, a runtime without a process on the host, a
container without a memory cgroup, an engine with a root of its own. Nothing is observed meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from kickwatch.configuration.types import Config
from kickwatch.errors import BusyError, KickwatchError
from kickwatch.experiment.armed_observers import listed_cpus
from kickwatch.experiment.clean_up import reap_everything
from kickwatch.experiment.engine_setup import EngineSetup, present_image
from kickwatch.model import Container
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.lock import NodeLock
from kickwatch.node.roots import HOST
from kickwatch.process.cancellation import run_shielded
from kickwatch.process.signals import Shutdown
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.engine_choice import ChosenEngine, choose_engine
from kickwatch.workload.knobs import Knobs
from kickwatch.workload.names import new_trial_id, read_instance

_CLEAN_UP_S = 60.0
_PASSIVE = "workload.enabled is false: this kickwatch is passive and starts no container"
WhyNot = Callable[[Engine, EngineInfo, Cgroups], Awaitable[str]]


class ContainerTried(msgspec.Struct, frozen=True, kw_only=True):
    """How it went. `skipped`: why none was started; empty if one was to be started.

    `failure`: what went wrong, with its `remedy`; empty if nothing did. `kmem_bytes`: kernel memory charged to it, None
    if its program ended before that was read. Durations in milliseconds.
    """

    started: bool = False
    skipped: str = ""
    failure: str = ""
    remedy: str = ""
    engine: str = ""
    kmem_bytes: int | None = None
    create_ms: float | None = None
    start_ms: float | None = None
    remove_ms: float | None = None


async def nothing_against_it(_engine: Engine, _info: EngineInfo, _cgroups: Cgroups) -> str:
    """For a node where nothing forbids a container."""
    return ""


async def try_container(
    config: Config, why_not: WhyNot = nothing_against_it, ending: Shutdown | None = None
) -> ContainerTried:
    """Start one container, wait for its barrier, and remove it and everything made for it, also when cancelled.

    `why_not` gives the reason for not starting one, empty if there is none. None is started if kickwatch is passive, or
    while another kickwatch holds the node's lock: it would take the container for its own fault. Raises nothing.
    """
    if not config.workload.enabled:
        return ContainerTried(skipped=_PASSIVE)
    leave_isolated_cpus(await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config)))
    try:
        with NodeLock():
            return await _tried(config, why_not, ending or Shutdown())
    except BusyError as error:
        return ContainerTried(skipped=error.what)
    except KickwatchError as error:
        return ContainerTried(failure=error.what, remedy=error.remedy)
    except OSError as error:
        return ContainerTried(failure=str(error), remedy="as the error says")


async def _tried(config: Config, why_not: WhyNot, ending: Shutdown) -> ContainerTried:
    cgroups = await asyncio.to_thread(Cgroups.read)
    stack = AsyncExitStack()
    try:
        chosen = await choose_engine(config)
        stack.push_async_callback(chosen.engine.close)
        stack.enter_context(ending.calls(chosen.engine.shorten_timeouts))
        reason = await why_not(chosen.engine, chosen.info, cgroups)
        if reason:
            return ContainerTried(skipped=reason)
        return await _Attempt(config, chosen, cgroups, stack).run()
    finally:
        await run_shielded(stack.aclose(), _CLEAN_UP_S)


@dataclass(frozen=True)
class _Attempt:
    config: Config
    chosen: ChosenEngine
    cgroups: Cgroups
    stack: AsyncExitStack  # gets what must be removed

    async def run(self) -> ContainerTried:
        engine, info = self.chosen.engine, self.chosen.info
        instance = await asyncio.to_thread(read_instance)
        image = await present_image(engine, self.config.workload.image, self.stack)
        self.stack.push_async_callback(partial(reap_everything, engine, info, instance, self.cgroups))
        setup = EngineSetup(self.config, engine, info, instance, self.cgroups, image)
        plan = replace(setup.plan(new_trial_id(), 1), hold_s=0.0, rate_hz=0.0)
        (container,) = await setup.churn(plan, Knobs(parent=setup.parent_memcg), _uncounted).run()
        failure, remedy = what_is_wrong(container, self.cgroups.version)
        return ContainerTried(
            started=bool(container.start_ms),
            failure=failure,
            remedy=remedy,
            engine=str(info),
            kmem_bytes=container.kmem_bytes,
            create_ms=container.create_ms,
            start_ms=container.start_ms,
            remove_ms=container.remove_ms,
        )


async def _uncounted() -> None:
    """No probe counts the container's broadcasts."""


def what_is_wrong(container: Container, version: CgroupVersion) -> tuple[str, str]:
    """(what no trial could work with, what to do); empty for a container that would count. Pure."""
    if container.failure:
        return container.failure, "remove the cause that it names: a trial's containers would fail in the same way"
    if container.ended_unread:
        return "", ""
    if container.kmem_bytes is None:
        what = "its memory cgroup shows no kernel memory"
        return what, "give containers the memory controller (cgroup v2: +memory in the parents' cgroup.subtree_control)"
    if container.kmem_bytes == 0 and version is CgroupVersion.V1:  # on v2 the figure may be seconds old
        return "no kernel memory was charged to its memory cgroup", "boot without cgroup.memory=nokmem"
    return "", ""
