"""What this node supports, found by trying. A missing capability has a reason and a remedy."""

import asyncio
import os
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import chosen_cpus, listed_cpus
from kickwatch.experiment.capability import Capability
from kickwatch.experiment.capability_costs import COSTS, NEEDED_TO_START, PASSIVE_COSTS
from kickwatch.experiment.observer_rows import observer_rows
from kickwatch.experiment.one_container import ContainerTried
from kickwatch.experiment.service_engine import missing_to_service
from kickwatch.experiment.service_probes import ServiceProbes, open_observatory
from kickwatch.native.driver import Helper
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, nokmem
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.roots import HOST
from kickwatch.observe.bpf import enable_statistics
from kickwatch.observe.control import control_and_cause, control_cpus, refusal, silenced_by, too_few_cpus
from kickwatch.observe.observatory import Observatory
from kickwatch.workload.engine import EngineInfo
from kickwatch.workload.engine_choice import choose_engine
from kickwatch.workload.names import OWN_CGROUPS

SERVICE_ENGINE, SERVICE_PROBES = "the service's engine", "the service's probes"
_COST_EVENTS = 2003
_NO_REMEDY = "not known: report it, with `kickwatch doctor --json`"


async def examine(
    config: Config, *, control: bool = False, container: ContainerTried | None = None
) -> list[Capability]:
    """Try everything once. This arms the probes for a moment, which interrupts every CPU some tens of times.

    Where the service's capabilities do not arm all of them, it arms them twice. `container`: what starting one showed.
    """
    found = await _examined(config, control=control, container=container)
    costs = COSTS
    if not config.workload.enabled:
        found = [replace(one, needed=one.needed and one.name not in NEEDED_TO_START) for one in found]
        costs = COSTS | PASSIVE_COSTS
    return [one if one.satisfied else _costly(one, costs) for one in found]


def _costly(missing: Capability, costs: Mapping[str, str]) -> Capability:
    return replace(missing, cost=costs[missing.name], remedy=missing.remedy or _NO_REMEDY)


async def _examined(config: Config, *, control: bool, container: ContainerTried | None) -> list[Capability]:
    leave_isolated_cpus(await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config)))
    engine, info = await _engine(config)
    found = [*await asyncio.to_thread(lambda: (_cgroup(), _kmem_accounting())), engine]
    if container is not None:
        found.append(container_capability(container, engine))
    if info is not None and config.workload.enabled:
        found += await _service_engine(config, info)
    try:
        own = None if config.workload.enabled else OWN_CGROUPS
        observatory, service = await open_observatory(listed_cpus(config), own)
    except KickwatchError as error:
        return [
            *found,
            Capability(name="observers", satisfied=False, detail=error.what, remedy=error.remedy, needed=True),
        ]
    try:
        found += await observer_rows(observatory, passive=not config.workload.enabled)
        chosen = chosen_cpus(config)
        cpus = await asyncio.to_thread(control_cpus, observatory.isolated_cpus, chosen)
        found.append(await asyncio.to_thread(enough_cpus, cpus, chosen, observatory.isolated_cpus))
        found.append(await _cost(observatory, cpus))
        if service is not None:
            found.append(service_capability(service))
        if control:
            found.append(await _control(observatory, chosen))
    finally:
        observatory.close()
    return found


def _cgroup() -> Capability:
    try:
        cgroups = Cgroups.read()
    except KickwatchError as error:
        return Capability(name="memory cgroups", satisfied=False, detail=error.what, remedy=error.remedy, needed=True)
    writable = os.access(cgroups.memory_root, os.W_OK)
    return Capability(
        name="memory cgroups",
        satisfied=writable,
        detail=f"cgroup {cgroups.version}, {cgroups.memory_root} {'writable' if writable else 'not writable'}",
        remedy="" if writable else "run as root, with the cgroup file system mounted read-write",
        needed=True,
    )


def _kmem_accounting() -> Capability:
    off = nokmem(kernel.command_line())
    return Capability(
        name="kmem accounting",
        satisfied=not off,
        detail="off: booted with cgroup.memory=nokmem" if off else "on (each trial verifies it for each container)",
        remedy="remove cgroup.memory=nokmem from the kernel command line and reboot" if off else "",
        needed=True,
    )


async def _engine(config: Config) -> tuple[Capability, EngineInfo | None]:
    name = "container engine"
    try:
        chosen = await choose_engine(config)
    except KickwatchError as error:
        return Capability(name=name, satisfied=False, detail=error.what, remedy=error.remedy, needed=True), None
    await chosen.engine.close()
    info = chosen.info
    endpoint = info.endpoint or config.engine.socket
    others = f" (of {', '.join(info.runtimes)})" if len(info.runtimes) > 1 else ""
    runtime = f"runtime {info.runtime}{others}, cgroup driver {info.cgroup_driver}"
    detail = f"{info}, {runtime}, at {endpoint}, because {chosen.why}"
    return Capability(name=name, satisfied=True, detail=detail, needed=True), info


async def _service_engine(config: Config, chosen: EngineInfo) -> list[Capability]:
    """Empty where the service would choose the same engine, or where no service can be."""
    missing = await asyncio.to_thread(missing_to_service, config, chosen)
    if missing is None:
        return []
    return [Capability(name=SERVICE_ENGINE, satisfied=False, detail=missing.what, remedy=missing.remedy)]


def container_capability(tried: ContainerTried, engine: Capability) -> Capability:
    """What starting one container showed. Nothing, if the engine is what is missing: that is reported once."""
    if not engine.satisfied:
        tried = ContainerTried(skipped="no container engine can be used")
    failed = bool(tried.failure)
    detail = tried.failure or (f"not started: {tried.skipped}" if tried.skipped else _container_figures(tried))
    return Capability(
        name="a container",
        satisfied=not failed,
        detail=detail,
        remedy=tried.remedy,
        needed=True,
        tried=not tried.skipped,
    )


def _container_figures(tried: ContainerTried) -> str:
    charged = "its program ended before its kernel memory was read"
    if tried.kmem_bytes is not None:
        charged = f"{tried.kmem_bytes / 1024:.0f} KiB of kernel memory charged"
    steps = (("created", tried.create_ms), ("started", tried.start_ms), ("removed", tried.remove_ms))
    took = ", ".join(f"{step} in {step_ms or 0:.0f} ms" for step, step_ms in steps)
    return f"started and removed: {charged}, {took}"


def service_capability(probes: ServiceProbes) -> Capability:
    """Whether the service could arm what root can. Not needed for a trial by hand."""
    return Capability(name=SERVICE_PROBES, satisfied=not probes.lost, detail=probes.detail, remedy=probes.remedy)


def enough_cpus(cpus: Sequence[int], chosen: Sequence[int], isolated: Sequence[int] = ()) -> Capability:
    """Whether the positive control has the two CPUs that it needs. `chosen`: those that are configured. Blocks."""
    enough = len(cpus) > 1
    what, remedy = ("", "") if enough else too_few_cpus(chosen, isolated)
    which = "of control.cpus" if chosen else "that are not isolated"
    return Capability(
        name="CPUs for the positive control",
        satisfied=enough,
        detail=f"{', '.join(map(str, cpus))} ({which})" if enough else what,
        remedy=remedy,
        needed=True,
    )


async def _control(observatory: Observatory, chosen: Sequence[int]) -> Capability:
    outcome, cause = await control_and_cause(observatory, chosen)
    remedy = cause.remedy if cause else ""
    remedy = remedy or "do not trust any figure of this node: report a bug with `doctor --json`"
    if observatory.requests is None:
        remedy = "as for IPIs by reason above"
    elif len(outcome.cpus) < 2:
        remedy = "as for the CPUs above"
    untried = cause.what if cause else outcome.detail
    return Capability(
        name="positive control",
        satisfied=outcome.passed,
        detail=f"counted {outcome.detail}" if outcome.calls is not None else untried,
        remedy="" if outcome.passed else remedy,
        needed=True,
    )


async def _make_events(cpus: Sequence[int]) -> None:
    """Send a known number of harmless requests: memory barriers between our own threads."""
    async with Helper(["barriers", str(_COST_EVENTS), "1", ",".join(map(str, cpus[:2]))]) as helper:
        await helper.ask("many", 30)


async def _cost(observatory: Observatory, cpus: Sequence[int]) -> Capability:
    """Mean cost of the IPI probe per event, from the kernel's own statistics. Enabling those broadcasts."""
    name = "cost per event"
    if observatory.requests is None:
        remedy = "as for IPIs by reason"
        return Capability(name=name, satisfied=False, detail="no probe is armed", remedy=remedy)
    if len(cpus) < 2:
        detail, remedy = "not measured: it takes two CPUs, as the positive control", "as for the CPUs"
        return Capability(name=name, satisfied=False, detail=detail, remedy=remedy)
    try:
        descriptor = await asyncio.to_thread(enable_statistics)
    except KickwatchError as error:
        return Capability(name=name, satisfied=False, detail=error.what, remedy=error.remedy)
    try:
        ns0, runs0 = observatory.requests.cost()
        await _make_events(cpus)
        ns1, runs1 = observatory.requests.cost()
    except KickwatchError as error:
        cause = refusal(error, cpus)
        return Capability(name=name, satisfied=False, detail=cause.what, remedy=cause.remedy)
    finally:
        os.close(descriptor)
    runs = runs1 - runs0
    if not runs:
        silent = await asyncio.to_thread(silenced_by, observatory.requests)
        detail = f"the probe ran at none of {_COST_EVENTS} known requests" + (f": {silent.what}" if silent else "")
        remedy = silent.remedy if silent else "see the positive control: --control"
        return Capability(name=name, satisfied=False, detail=detail, remedy=remedy)
    return Capability(name=name, satisfied=True, detail=f"{(ns1 - ns0) / runs:.0f} ns mean over {runs} events")
