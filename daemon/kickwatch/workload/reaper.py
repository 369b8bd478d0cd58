"""Removes what kickwatch left behind, and nothing else: containers by label and instance, cgroups by their name."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from kickwatch.errors import CgroupError, EngineError
from kickwatch.node.cgroups import OWN_PREFIX, Cgroups, remove_tree
from kickwatch.workload.engine import Engine

_SYSTEMCTL_DEADLINE_S = 30.0
_NOT_LOADED = 5  # systemctl's exit status for a unit that is not there (LSB: program is not installed)


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

    A directory that still holds processes is left alone: they are a container's that could not be removed. Raises one
    CgroupError for all that stays, after every hierarchy was tried.
    """
    failures = [failure for mount in cgroups.mounts for name in names for failure in _remove(mount / name)]
    if failures:
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise CgroupError(f"{failures[0].what}{others}", failures[0].remedy) from failures[0]


def _remove(directory: Path) -> list[CgroupError]:
    """Why `directory` or something below it stays; nothing where all is gone."""
    try:
        # Only our containers ever live below our parent; what is left in one whose engine forgot it (an init of a runc
        # that was killed in between) is ours to end.
        remaining = remove_tree(directory, kill=True) if directory.is_dir() else ()
    except CgroupError as error:
        return [error]
    except OSError as error:
        return [CgroupError(f"{directory} cannot be listed ({error.strerror})", "run as root")]
    return [CgroupError(f"{path} is in use and stays", "end the processes in its cgroup.procs") for path in remaining]


def stop_slice(
    name: str, *, proc: Path = Path("/proc"), root: Path = Path("/"), systemctl: str | Path = "systemctl"
) -> bool:
    """Stop the slice `name` of our containers; True when systemd was asked to. It blocks: call it in a thread.

    systemd starts a slice on demand, with the first scope in it, and keeps it, cgroups and all, after the last one. A
    slice that still has something in it is left alone, since stopping it would kill that. Nothing is done where pid 1
    is no systemd (sd_booted(3)). Raises CgroupError.
    """
    if not name.startswith(OWN_PREFIX) or not name.endswith(".slice") or "/" in name:
        raise CgroupError(f"the slice {name} is not one of ours", f"ours begin with {OWN_PREFIX}")
    if not (root / "run/systemd/system").is_dir() or _inhabited(name, Cgroups.read(proc, root)):
        return False
    command = [str(systemctl), "stop", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CgroupError(f"{name} could not be stopped ({error})", f"systemctl stop {name}") from error
    if done.returncode not in {0, _NOT_LOADED}:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise CgroupError(f"{name} could not be stopped ({said})", f"systemctl stop {name}")
    return True


def _inhabited(name: str, cgroups: Cgroups) -> bool:
    """True when the slice has a scope, a service or a slice below it in any hierarchy."""
    return any(path.is_dir() for mount in cgroups.mounts for path in (mount / name).glob("*"))
