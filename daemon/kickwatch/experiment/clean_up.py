"""Removes our containers and cgroups before, between and after trials. What cannot be removed is logged."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineError, KickwatchError, LeftoversStayError
from kickwatch.journal.journal import Event, logger
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.roots import HOST
from kickwatch.workload.container_record import ContainerRecord
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.engine_choice import choose_engine
from kickwatch.workload.names import OWN_CGROUPS, cgroup_parent, read_instance
from kickwatch.workload.oci_engine import ROOT
from kickwatch.workload.oci_store import BundleStore
from kickwatch.workload.reaper import ids_below, reap_cgroups, reap_containers, stop_slice

T = TypeVar("T")


async def sweep(config: Config, alive: Callable[[], None]) -> int:
    """Remove what a killed kickwatch left, for when no trial starts now. Returns the number of containers found.

    `alive` is called after each of the engine's calls. Raises LeftoversStayError if some of them are still there, and
    other KickwatchErrors if no engine answers.
    """
    cgroups = await asyncio.to_thread(Cgroups.read)
    chosen = await choose_engine(config, on_call_end=alive)
    try:
        instance = await asyncio.to_thread(read_instance)
        reaped = await reap_everything(chosen.engine, chosen.info, instance, cgroups)
        if chosen.info.cgroup_parent:  # an engine without a daemon: its containers are gone, so their files can go too
            await log_failure(_sweep_store(instance, cgroups))
        left = {*await chosen.engine.own_containers(instance), *await asyncio.to_thread(_stored, instance)}
        if left:
            raise LeftoversStayError(f"{len(left)} containers of an earlier kickwatch stay for now", "the log says why")
        return reaped
    finally:
        await chosen.engine.close()


def _stored(instance: str) -> list[str]:
    """The containers of an engine without a daemon that still have files; that engine itself lists them as well."""
    return list(BundleStore(ROOT, HOST.proc).own_containers(instance))


async def reap_everything(engine: Engine, info: EngineInfo, instance: str, cgroups: Cgroups) -> int:
    """Remove our containers and our cgroup parents. What cannot be removed is logged, and tried at the next start.

    Returns the number of containers found.
    """
    reaped = await log_failure(reap_containers(engine, instance)) or 0
    if not info.cgroup_parent:  # an earlier kickwatch may have used an engine without a daemon
        reaped += await log_failure(_sweep_store(instance, cgroups)) or 0
    parent = (info.cgroup_parent or cgroup_parent(info.cgroup_driver)).lstrip("/")
    if parent.endswith(".slice"):
        await log_failure(asyncio.to_thread(stop_slice, parent))
    await log_failure(asyncio.to_thread(_reap_cgroups, cgroups, parent))
    return reaped


def _reap_cgroups(cgroups: Cgroups, parent: str) -> None:
    """Remove our cgroup parent. A container is forgotten once its cgroup is gone. Raises CgroupError."""
    record = ContainerRecord()
    try:
        reap_cgroups(cgroups, (parent,), record.read())
    finally:
        forget_gone(cgroups, record)


def forget_gone(cgroups: Cgroups, record: ContainerRecord) -> None:
    """Drop the containers that have no cgroup from the record; call it while none is started."""
    with suppress(OSError):  # a parent cannot be listed: all stay in the record
        record.retain(ids_below(cgroups, OWN_CGROUPS))


async def _sweep_store(instance: str, cgroups: Cgroups) -> int:
    """Remove what an engine without a daemon left. Returns the number of containers found."""
    try:
        return await asyncio.to_thread(BundleStore(ROOT, HOST.proc).remove_leftovers, instance, cgroups)
    except OSError as error:
        raise EngineError(f"cannot empty {ROOT} ({error.strerror})", f"remove {ROOT} by hand") from error


async def log_failure(work: Awaitable[T]) -> T | None:
    """Await `work`. Returns its result, or None if it failed; the failure is logged."""
    try:
        return await work
    except KickwatchError as error:
        log_clean_up_failed(error)
        return None


def log_clean_up_failed(error: KickwatchError) -> None:
    """Something of ours could not be removed."""
    logger().error(Event.CLEAN_UP_FAILED, what=error.what, remedy=error.remedy)
