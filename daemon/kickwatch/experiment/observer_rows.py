"""What the observers see on this node, as rows of `doctor`. Every loss of the observatory is in one that is missing."""

from collections.abc import Iterable

from kickwatch.experiment.capability import Capability
from kickwatch.experiment.known_reasons import functions_found
from kickwatch.observe.containers import PROGRAMS
from kickwatch.observe.losses import Lost, causes
from kickwatch.observe.observatory import Observatory
from kickwatch.workload.names import OWN_CGROUPS

IPIS, SYMBOLS, CONTENTION, SLAB_MUTEX = "IPIs by reason", "kernel symbols", "lock contention", "slab_mutex"
TRACEPOINTS, ISOLATED, TARGETS = "tracepoints", "interrupts to isolated CPUs", "requests by target CPU"
OTHERS = "containers of others"
# The row that a loss belongs to. Rows that no function below makes are there only if something is lost.
ROWS = {
    Lost.NAMES: SYMBOLS,
    Lost.REQUESTS: IPIS,
    Lost.BETTER_REQUESTS: TRACEPOINTS,
    Lost.WAITS: CONTENTION,
    Lost.BETTER_WAITS: TRACEPOINTS,
    Lost.UNDER_MUTEX: SLAB_MUTEX,
    Lost.HOLDERS: SLAB_MUTEX,
    Lost.SLAB_MUTEX: SLAB_MUTEX,
    Lost.OTHER_INTERRUPTS: ISOLATED,
    Lost.FAR_REQUESTS: ISOLATED,
    Lost.TARGETS: TARGETS,
    Lost.CONTAINERS: OTHERS,
    Lost.MEMBERS: OTHERS,
}
_AS_FOR_SYMBOLS = "as for kernel symbols"


async def observer_rows(observatory: Observatory, *, passive: bool) -> list[Capability]:
    """All of them. `passive`: also what passive mode needs, which this arms."""
    found = [_ipis(observatory), _names(observatory), _contention(observatory), _slab_mutex(observatory)]
    if observatory.isolated_cpus:
        found.append(_isolated(observatory))
    if passive:
        found.append(await _others(observatory))
    return [*found, *_further(observatory, {one.name for one in found})]


def _lost(observatory: Observatory, row: str) -> tuple[str, str]:
    """(what is the case, what removes it), of all losses in this row; empty without one."""
    return causes(observatory.lost(*(lost for lost, its_row in ROWS.items() if its_row == row)))


def _further(observatory: Observatory, shown: Iterable[str]) -> list[Capability]:
    """The rows of losses that are in none of those `shown`."""
    rows = dict.fromkeys(ROWS[loss.lost] for loss in observatory.present_losses)
    found = ((row, *_lost(observatory, row)) for row in rows if row not in shown)
    return [Capability(name=row, satisfied=False, detail=what, remedy=remedy) for row, what, remedy in found]


def _ipis(observatory: Observatory) -> Capability:
    armed = observatory.requests
    if armed is not None:
        return Capability(name=IPIS, satisfied=True, detail=armed.places, needed=True)
    if observatory.symbols.hidden:
        what, remedy = "no request can be attributed without kernel symbols", _AS_FOR_SYMBOLS
    else:
        what, remedy = _lost(observatory, IPIS)
    return Capability(name=IPIS, satisfied=False, detail=f"counters only: {what}", remedy=remedy, needed=True)


def _names(observatory: Observatory) -> Capability:
    what, remedy = _lost(observatory, SYMBOLS)
    return Capability(
        name=SYMBOLS,
        satisfied=not what,
        detail=what or f"/proc/kallsyms, with {functions_found(observatory.symbols)}",
        remedy=remedy,
        needed=True,
    )


def _contention(observatory: Observatory) -> Capability:
    armed = observatory.contention
    if armed is not None:
        return Capability(name=CONTENTION, satisfied=True, detail=armed.places)
    if observatory.symbols.hidden:
        return Capability(name=CONTENTION, satisfied=False, detail="no mutex has a name", remedy=_AS_FOR_SYMBOLS)
    what, remedy = _lost(observatory, CONTENTION)
    return Capability(name=CONTENTION, satisfied=False, detail=what, remedy=remedy)


def _slab_mutex(observatory: Observatory) -> Capability:
    """Whether its address is known, to either probe, and what is read through it."""
    address = observatory.slab_mutex
    if not address and observatory.symbols.hidden:
        return Capability(name=SLAB_MUTEX, satisfied=False, detail="address unknown", remedy=_AS_FOR_SYMBOLS)
    if not address and observatory.contention is None:
        detail = "address unknown: kallsyms does not list it, and no probe can learn it from tasks that wait"
        return Capability(name=SLAB_MUTEX, satisfied=False, detail=detail, remedy="as for lock contention")
    listed = observatory.symbols.address_of("slab_mutex")
    how = "from kallsyms" if listed else "learned from tasks that waited for it"
    where = f"at {address:#x}, {how}" if address else "address unknown"
    what, remedy = _lost(observatory, SLAB_MUTEX)
    if what:
        return Capability(name=SLAB_MUTEX, satisfied=False, detail=f"{where}; {what}", remedy=remedy)
    holders = "waits for it are not seen" if observatory.contention is None else "names of its holders known"
    return Capability(name=SLAB_MUTEX, satisfied=True, detail=f"{where}; {holders}")


def _isolated(observatory: Observatory) -> Capability:
    """Whether all that interrupts isolated CPUs is counted. Only where there are some."""
    isolated = observatory.isolated_cpus
    cpus = f"CPU{'s' if len(isolated) > 1 else ''} {', '.join(map(str, isolated))}"
    what, remedy = _lost(observatory, ISOLATED)
    if not what and not observatory.ipis_armed:
        what, remedy = "no probe is armed without kernel symbols", _AS_FOR_SYMBOLS
    if what:
        return Capability(name=ISOLATED, satisfied=False, detail=f"{cpus}: {what}", remedy=remedy)
    detail = f"{cpus}: tracepoints ipi:ipi_send_cpu, ipi_send_cpumask"
    return Capability(name=ISOLATED, satisfied=True, detail=detail)


async def _others(observatory: Observatory) -> Capability:
    """Whether the containers that others start can be counted, and billed."""
    await observatory.arm_passive(OWN_CGROUPS)
    if observatory.containers is None or (observatory.members is None and observatory.requests is not None):
        what, remedy = _lost(observatory, OTHERS)
        return Capability(name=OTHERS, satisfied=False, detail=what, remedy=remedy, needed=True)
    detail = f"raw tracepoints {', '.join(PROGRAMS.values())}"
    return Capability(name=OTHERS, satisfied=True, detail=detail, needed=True)
