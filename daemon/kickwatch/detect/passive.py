"""What passive mode proves: containers that others start, without windows to compare with. Pure.

Only the streams that need no comparison observe: *attributed* and *signature*. What the tasks of containers sent counts
per container. What other tasks sent on the creation path may belong to a container (a worker's broadcast, or systemd's,
which makes the cgroups of scopes) or to any other cgroup that was made meanwhile: it counts per cgroup. So a broadcast
for each new memory cgroup shows on a node where most of them are no containers, and one broadcast by chance does not
look like a container's.

Broadcasts that patch kernel text do not count here. A static key is switched with the first and with the last cgroup
that needs it (measured: cpusets_enabled_key, 6 to 12 broadcasts per container on a healthy 6.12, where containers run
one at a time under systemd). An experiment keeps a cgroup of its own, so there the key stays on; nobody else does.

All figures are lower bounds, so broadcasts are divided by the containers that may have been started, also by those
that were not counted: an event without room, a run of a runtime that is not certain yet, a cgroup that a container
made inside itself (a whole system in LXC makes one for each service, and its tasks are the container's). They raise
and end alarms, and never establish `quiet`.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from kickwatch.detect.classes import KICK, patched_by
from kickwatch.detect.quantities import Observations
from kickwatch.detect.streams import StreamName
from kickwatch.model import Cell, Look, Origin, Trial

LEAST_LOOK_S = 5.0  # between two observations
RECORD_S = 60.0
ALARMING_RECORD_S = 10.0  # a record with broadcasts is judged sooner, but no sooner than after the one before
LOOKS_PER_RECORD = 2  # at most, in the shortest time for a record: the pace that thresholds follow from


def observations_of_looks(looks: Iterable[Look]) -> dict[StreamName, Observations]:
    """One observation of *attributed* for each look with containers, one of *signature* for all of them."""
    seen = [look for look in looks if look.containers > 0]
    if not seen:
        return {}
    attributed = tuple(_per_container(look.own, look.others, _at_most(look), look.cgroups) for look in seen)
    containers, cgroups = sum(map(_at_most, seen)), sum(look.cgroups for look in seen)
    kicks = sum(look.own_kicks for look in seen), sum(look.other_kicks for look in seen)
    return {
        StreamName.ATTRIBUTED: attributed,
        StreamName.SIGNATURE: (_per_container(*kicks, containers, cgroups),),
    }


def _at_most(look: Look) -> int:
    return look.containers + look.uncounted


def _per_container(own: int, others: int, containers: int, cgroups: int) -> float:
    return own / containers + others / max(cgroups, containers)


def containers_of_others(trial: Trial) -> int:
    """Containers in a record of passive mode; 0 in any other."""
    return sum(look.containers for look in trial.looks)


def creation_path(cells: Iterable[Cell]) -> tuple[int, int]:
    """(broadcasts of the creation path that count, kicks of all CPUs for slab caches among them)."""
    sent = [cell for cell in cells if cell.on_creation_path]
    kicks = sum(unpatched(cell) for cell in sent if cell.reason == KICK and cell.origin is Origin.SLAB)
    return sum(map(unpatched, sent)), kicks


def unpatched(cell: Cell) -> int:
    """Broadcasts of a cell without those that patched kernel text."""
    return max(0, cell.broadcasts - patched_by(cell))


def counting_cells(trial: Trial) -> tuple[Cell, ...]:
    """The cells of the window with containers: the broadcasts that count in such a record, with a stack of theirs."""
    if not trial.looks:
        return trial.churn.cells
    return tuple(_counting(cell, unpatched(cell)) for cell in trial.churn.cells)


def _counting(cell: Cell, broadcasts: int) -> Cell:
    patched_only = cell.broadcasts > 0 and not broadcasts
    return replace(cell, broadcasts=broadcasts, stack=() if patched_only else cell.stack)


def divided(cells: Iterable[Cell], members: Iterable[Cell]) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """(the containers' cells, what went on beside them) of all `cells`, given those that their tasks sent.

    The containers' are what their tasks sent, without what an interrupt sent during it, and the creation path of any
    task.
    """
    own = {cell.identity: cell for cell in members if cell.origin is not Origin.IRQ}
    billed, beside = [], []
    for cell in cells:
        part = own.pop(cell.identity, None)
        if cell.on_creation_path:
            billed.append(cell)
            continue
        if part is not None:
            billed.append(part)
        rest = _minus(cell, part) if part is not None else cell
        if rest.requests > 0:
            beside.append(rest)
    billed += own.values()
    return _ordered(billed), _ordered(beside)


def _ordered(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: -cell.requests))


def _minus(whole: Cell, part: Cell) -> Cell:
    """Never negative: the two were read one after the other."""
    return Cell(
        reason=whole.reason,
        func=whole.func,
        origin=whole.origin,
        path=whole.path,
        requests=max(0, whole.requests - part.requests),
        calls=max(0, whole.calls - part.calls),
        broadcasts=max(0, whole.broadcasts - part.broadcasts),
        singles=max(0, whole.single_requests - part.single_requests),
        under_slab_mutex=max(0, whole.under_slab_mutex - part.under_slab_mutex),
        stack=whole.stack,
    )
