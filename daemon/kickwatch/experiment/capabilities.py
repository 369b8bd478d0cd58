"""What this node supports, found by trying. A missing capability has a reason and a remedy."""

import asyncio
import os
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from kickwatch.configuration.types import Config
from kickwatch.errors import KickwatchError
from kickwatch.experiment.armed_observers import chosen_cpus, listed_cpus
from kickwatch.experiment.known_reasons import functions_found
from kickwatch.native.driver import Helper
from kickwatch.node import kernel
from kickwatch.node.cgroups import Cgroups, nokmem
from kickwatch.node.housekeeping import leave_isolated_cpus
from kickwatch.node.isolation import isolated_cpus
from kickwatch.node.roots import HOST
from kickwatch.observe.bpf import enable_statistics
from kickwatch.observe.control import control_cpus, positive_control, too_few_cpus
from kickwatch.observe.observatory import Observatory
from kickwatch.workload.engine_choice import choose_engine

_COST_EVENTS = 2003


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that kickwatch uses. Without a `needed` one kickwatch is blind. `cost`: of what is missing."""

    name: str
    satisfied: bool
    detail: str
    remedy: str = ""
    needed: bool = False
    cost: str = ""


# What a node without it loses, by the name of the capability.
COSTS = {
    "memory cgroups": "no verdict: no container can be given a memory cgroup, and no canary can run",
    "kmem accounting": "no verdict: without it, creating a container creates no slab caches and cannot show the fault",
    "container engine": "no verdict: no container can be started",
    "observers": "no verdict: nothing counts what the kernel sends",
    "IPIs by reason": "no verdict `quiet`: the canary's counters alone can only show `broadcasting`",
    "kernel symbols": "no verdict: no request can be attributed to a kernel function",
    "lock contention": "nobody sees who waits for slab_mutex, and no such alert comes; verdicts are as good as ever",
    "slab_mutex": "waits for it, and broadcasts under it, are not known; verdicts are as good as ever",
    "CPUs for the positive control": "no verdict: the probes cannot be shown to count",
    "cost per event": "none for verdicts: only how much the probe costs is not known",
    "positive control": "no verdict: the probe does not count what it must",
}


async def examine(config: Config, *, control: bool = False) -> list[Capability]:
    """Try everything once. This arms the probes for a moment, which interrupts every CPU some tens of times."""
    found = await _examined(config, control=control)
    return [one if one.satisfied else replace(one, cost=COSTS[one.name]) for one in found]


async def _examined(config: Config, *, control: bool) -> list[Capability]:
    leave_isolated_cpus(await asyncio.to_thread(isolated_cpus, HOST, listed_cpus(config)))
    found = [_cgroup(), _kmem_accounting(), await _engine(config)]
    try:
        observatory = await Observatory.open(listed=listed_cpus(config))
    except KickwatchError as error:
        return [
            *found,
            Capability(name="observers", satisfied=False, detail=error.what, remedy=error.remedy, needed=True),
        ]
    try:
        found += [_ipis(observatory), _names(observatory), _contention(observatory), _slab_mutex(observatory)]
        chosen = chosen_cpus(config)
        cpus = await asyncio.to_thread(control_cpus, observatory.isolated_cpus, chosen)
        found.append(enough_cpus(cpus, chosen))
        found.append(await _cost(observatory, cpus))
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


async def _engine(config: Config) -> Capability:
    try:
        chosen = await choose_engine(config)
    except KickwatchError as error:
        return Capability(name="container engine", satisfied=False, detail=error.what, remedy=error.remedy, needed=True)
    await chosen.engine.close()
    info = chosen.info
    endpoint = info.endpoint or config.engine.socket
    detail = f"{info}, runtime {info.runtime}, cgroup driver {info.cgroup_driver}, at {endpoint}, because {chosen.why}"
    return Capability(name="container engine", satisfied=True, detail=detail, needed=True)


def _ipis(observatory: Observatory) -> Capability:
    armed = observatory.requests
    detail = armed.places if armed is not None else "counters only: " + "; ".join(observatory.losses)
    needs = "needs Linux 6.5 or kprobes, CAP_BPF + CAP_PERFMON (or root), kernel.kptr_restrict < 2"
    remedy = "" if armed is not None else needs
    return Capability(name="IPIs by reason", satisfied=armed is not None, detail=detail, remedy=remedy, needed=True)


def _names(observatory: Observatory) -> Capability:
    hidden = observatory.symbols.hidden
    return Capability(
        name="kernel symbols",
        satisfied=not hidden,
        detail="/proc/kallsyms shows no addresses"
        if hidden
        else f"/proc/kallsyms, with {functions_found(observatory.symbols)}",
        remedy="needs CAP_SYSLOG; under systemd ProtectKernelLogs=no and ProtectKernelTunables=no" if hidden else "",
        needed=True,
    )


def _contention(observatory: Observatory) -> Capability:
    armed = observatory.contention
    return Capability(
        name="lock contention",
        satisfied=armed is not None,
        detail=armed.places if armed is not None else "; ".join(observatory.losses),
        remedy="" if armed is not None else "needs Linux 5.19 or kprobes",
    )


def _slab_mutex(observatory: Observatory) -> Capability:
    contention = observatory.contention
    address = contention.slab_mutex if contention is not None else 0
    how = "from kallsyms" if observatory.symbols.address_of("slab_mutex") else "learned from tasks that waited for it"
    holders = "known" if contention is not None and contention.comm_offset else "unknown"
    return Capability(
        name="slab_mutex",
        satisfied=bool(address),
        detail=f"at {address:#x}, {how}; names of its holders {holders}"
        if address
        else "address unknown: no task has waited for it yet",
        remedy=""
        if address
        else "the address is in kallsyms with CONFIG_KALLSYMS_ALL; otherwise kickwatch learns it at the first wait",
    )


def enough_cpus(cpus: Sequence[int], chosen: Sequence[int]) -> Capability:
    """Whether the positive control has the two CPUs that it needs. `chosen`: those that are configured."""
    enough = len(cpus) > 1
    which = "of control.cpus" if chosen else "that are not isolated"
    return Capability(
        name="CPUs for the positive control",
        satisfied=enough,
        detail=f"{', '.join(map(str, cpus))} ({which})" if enough else too_few_cpus(chosen).partition(":")[0],
        remedy="" if enough else "set control.cpus to two CPUs that may be interrupted for some milliseconds an hour",
        needed=True,
    )


async def _control(observatory: Observatory, chosen: Sequence[int]) -> Capability:
    outcome = await positive_control(observatory, chosen)
    remedy = "do not trust any figure of this node: report a bug with `doctor --json`"
    if len(outcome.cpus) < 2:
        remedy = "as for the CPUs above" if observatory.requests is not None else "as for IPIs by reason above"
    return Capability(
        name="positive control",
        satisfied=outcome.passed,
        detail=f"counted {outcome.detail}" if outcome.calls is not None else outcome.detail,
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
        return Capability(name=name, satisfied=False, detail=error.what, remedy=error.remedy)
    finally:
        os.close(descriptor)
    runs = runs1 - runs0
    mean = f"{(ns1 - ns0) / runs:.0f} ns mean over {runs} events" if runs else "no events"
    return Capability(name=name, satisfied=True, detail=mean)


def blind(found: list[Capability]) -> bool:
    """True if a needed capability is missing."""
    return any(capability.needed and not capability.satisfied for capability in found)
