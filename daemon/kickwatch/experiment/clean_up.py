"""What is removed before, between and after: containers and cgroups of ours; what stays is said and tried again."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from kickwatch.configuration.types import Config
from kickwatch.errors import EngineError, KickwatchError
from kickwatch.journal.journal import Event, logger
from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.choose import choose
from kickwatch.workload.engine import Engine, EngineInfo
from kickwatch.workload.names import cgroup_parent, read_instance
from kickwatch.workload.oci_engine import ROOT
from kickwatch.workload.oci_store import Store
from kickwatch.workload.reaper import reap_cgroups, reap_containers, stop_slice

T = TypeVar("T")


async def sweep(config: Config) -> int:
    """Remove what a killed kickwatch left, where nothing is to be started now; returns how many containers there were.

    Raises KickwatchError where no engine answers.
    """
    cgroups = await asyncio.to_thread(Cgroups.read)
    chosen = await choose(config)
    try:
        instance = await asyncio.to_thread(read_instance)
        reaped = await reap_everything(chosen.engine, chosen.info, instance, cgroups)
        if chosen.info.cgroup_parent:  # its containers are gone: so may be what it kept for them
            await log_failure(_swept(instance, cgroups))
        return reaped
    finally:
        await chosen.engine.close()


async def reap_everything(engine: Engine, info: EngineInfo, instance: str, cgroups: Cgroups) -> int:
    """Remove our containers and our cgroup parents; what stays is said, and tried again at the next start.

    Returns how many containers there were.
    """
    reaped = await log_failure(reap_containers(engine, instance)) or 0
    if not info.cgroup_parent:  # the engine before this one may have been none
        reaped += await log_failure(_swept(instance, cgroups)) or 0
    parent = (info.cgroup_parent or cgroup_parent(info.cgroup_driver)).lstrip("/")
    if parent.endswith(".slice"):
        await log_failure(asyncio.to_thread(stop_slice, parent))
    await log_failure(asyncio.to_thread(reap_cgroups, cgroups, (parent,)))
    return reaped


async def _swept(instance: str, cgroups: Cgroups) -> int:
    """What an engine without a daemon left."""
    try:
        return await asyncio.to_thread(Store(ROOT, Path("/proc")).sweep, instance, cgroups)
    except OSError as error:
        raise EngineError(f"{ROOT} cannot be cleared ({error.strerror})", f"remove {ROOT}") from error


async def log_failure(work: Awaitable[T]) -> T | None:
    """What `work` returns; a failure is said, and None."""
    try:
        return await work
    except KickwatchError as error:
        log_clean_up_failed(error)
        return None


def log_clean_up_failed(error: KickwatchError) -> None:
    """Something of ours stays."""
    logger().error(Event.CLEAN_UP_FAILED, what=error.what, remedy=error.remedy)
