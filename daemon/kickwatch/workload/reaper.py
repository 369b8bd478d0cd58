"""Removes what kickwatch left on the node and nothing else: containers by label and instance, cgroups by name.

Processes are ended only in cgroups of containers that kickwatch has started.
"""

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from kickwatch.errors import CgroupError, EngineError
from kickwatch.node.cgroup_removal import remove_tree
from kickwatch.node.cgroups import OWN_PREFIX, Cgroups, read_text
from kickwatch.node.delegation import writable
from kickwatch.node.roots import HOST, HostRoots
from kickwatch.workload.container_record import id_of
from kickwatch.workload.engine import Engine

# Processes have a second to end in each hierarchy. Another's container stays: it is waited for in one, not in a dozen.
_ATTEMPTS, _ATTEMPTS_BESIDE_OTHERS = 20, 3
_IN_USE_REMEDY = "end the processes in its cgroup.procs, or let another's container have another cgroup parent"
_SYSTEMCTL_TIMEOUT_S = 30.0
_UNIT_NOT_LOADED = 5  # systemctl's exit status for a unit that does not exist (LSB: program is not installed)
_OWN_NAME = re.compile(r"kickwatch-[0-9a-f]{8}-[0-9]+")  # of a container's cgroup where no engine gives it an id


async def reap_containers(engine: Engine, instance: str) -> int:
    """Remove every container of this instance; return their number. Raises the first failure after trying all."""
    failures: list[EngineError] = []
    found = await engine.own_containers(instance)
    for container_id in found:
        try:
            await engine.remove(container_id)
        except EngineError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return len(found)


def reap_cgroups(cgroups: Cgroups, names: Sequence[str], started: Collection[str] = ()) -> None:
    """Remove our cgroup parents in every hierarchy; call it after the containers below them are removed.

    `started`: ids of containers that kickwatch has started. What is left in their cgroups is ended, such as the init of
    a runc that was killed during a start, which no engine knows any more. A directory with other processes stays.

    Raises one CgroupError for all that stay, after trying every hierarchy. An empty parent at the root of a hierarchy
    is no failure for the service, which may not write there (mode 0555, without CAP_DAC_OVERRIDE): its unit removes it
    with ExecStopPost=.
    """
    failures: list[CgroupError] = []
    attempts = _ATTEMPTS
    for directory in (mount / name for mount in cgroups.mounts for name in names):
        failures += _remove(directory, started, attempts)
        if failures and _others_below(directory, started):
            attempts = _ATTEMPTS_BESIDE_OTHERS
    if failures:
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise CgroupError(f"{failures[0].what}{others}", failures[0].remedy) from failures[0]


def ids_below(cgroups: Cgroups, names: Sequence[str]) -> frozenset[str]:
    """Ids of the containers that have a cgroup right below one of our parents, ours and others'. Raises OSError."""
    found = (child.name for mount in cgroups.mounts for name in names for child in _children(mount / name))
    return frozenset(filter(None, map(id_of, found)))


def _children(cgroup: Path) -> list[Path]:
    """The cgroups right below it; none if it does not exist, or is removed meanwhile. Raises OSError."""
    with suppress(FileNotFoundError), os.scandir(cgroup) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def _remove(directory: Path, started: Collection[str], attempts: int) -> list[CgroupError]:
    """Why `directory` or something below it stays; empty if all of it is removed."""
    try:
        kill = partial(_is_ours, directory, started)
        top = writable(directory.parent)
        remaining = remove_tree(directory, kill=kill, attempts=attempts, top=top) if directory.is_dir() else ()
    except CgroupError as error:
        return [error]
    except OSError as error:
        return [CgroupError(f"{directory} cannot be listed ({error.strerror})", "run as root")]
    return [CgroupError(f"{path} is in use and stays", _IN_USE_REMEDY) for path in remaining]


def _others_below(directory: Path, started: Collection[str]) -> bool:
    """Whether processes that are not ours to end run in one of the cgroups right below `directory`."""
    with suppress(OSError):
        below = (child for child in _children(directory) if read_text(child / "cgroup.procs"))
        return not all(_is_ours(directory, started, cgroup) for cgroup in below)
    return False


def _is_ours(parent: Path, started: Collection[str], cgroup: Path) -> bool:
    """Whether `cgroup` belongs to a container of ours below `parent`, by its id or the name that we give."""
    below = cgroup.relative_to(parent).parts
    return bool(below) and (_OWN_NAME.fullmatch(below[0]) is not None or id_of(below[0]) in started)


def stop_slice(name: str, *, host: HostRoots = HOST, systemctl: str | Path = "systemctl") -> bool:
    """Stop the slice `name` of our containers; True if systemd was asked to. Blocks: call it in a thread.

    systemd starts a slice with the first scope in it, and keeps the slice and its cgroups after the last one. A slice
    with a unit in it is left alone, because stopping the slice would kill that unit. Does nothing if systemd is not pid
    1 (sd_booted(3)). Raises CgroupError.
    """
    if not name.startswith(OWN_PREFIX) or not name.endswith(".slice") or "/" in name:
        raise CgroupError(f"the slice {name} is not one of ours", f"ours begin with {OWN_PREFIX}")
    if not (host.run / "systemd/system").is_dir() or _has_units(name, Cgroups.read(host)):
        return False
    command = [str(systemctl), "stop", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CgroupError(f"{name} could not be stopped ({error})", f"systemctl stop {name}") from error
    if done.returncode not in {0, _UNIT_NOT_LOADED}:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise CgroupError(f"{name} could not be stopped ({reason})", f"systemctl stop {name}")
    return True


def _has_units(name: str, cgroups: Cgroups) -> bool:
    """True if the slice has a scope, a service or a slice below it in any hierarchy, or if that cannot be read."""
    try:
        return any(_children(mount / name) for mount in cgroups.mounts)
    except OSError:
        return True
