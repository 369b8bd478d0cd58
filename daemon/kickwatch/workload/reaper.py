"""Removes what kickwatch left behind, and nothing else: containers by label and instance, cgroups by their name."""

from collections.abc import Sequence

from kickwatch.errors import EngineError
from kickwatch.node.cgroups import Cgroups, remove_tree
from kickwatch.workload.engine import Engine


async def reap_containers(engine: Engine, instance: str) -> int:
    """Remove every container of this instance; returns how many. The first failure is raised after all were tried."""
    failures: list[EngineError] = []
    found = await engine.ours(instance)
    for container_id in found:
        try:
            await engine.remove(container_id)
        except EngineError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return len(found)


def reap_cgroups(cgroups: Cgroups, names: Sequence[str]) -> None:
    """Remove our cgroup parents in every hierarchy, once the containers below them are gone.

    A directory that still holds processes is left alone: they are a container's that could not be removed.
    """
    for mount in cgroups.mounts:
        for name in names:
            directory = mount / name
            if directory.is_dir():
                remove_tree(directory)
