"""cgroup v2: disables the controllers that a runtime has enabled in the cgroups above ours (cgroup.subtree_control).

runc and crun, given a cgroup, enable every controller from the root down to it and leave them enabled: all other
cgroups there are then accounted for by controllers that no one asked for.

The kernel refuses to disable a controller only if a child enables it for its own children. A child that merely uses the
controller would lose its limits without an error: a controller that another cgroup may use by now stays enabled.
"""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kickwatch.node.cgroups import OWN_PREFIX, Cgroups, CgroupVersion, enabled_controllers
from kickwatch.node.delegation import own_base

_KEPT = "memory"  # kickwatch enables it itself while it has memory cgroups


class SubtreeState(msgspec.Struct, frozen=True):
    """Of one cgroup: the controllers enabled for its children, and the names of the children."""

    controllers: frozenset[str]
    children: frozenset[str] = frozenset()


def subtree_states(cgroups: Cgroups) -> dict[Path, SubtreeState]:
    """The state of each cgroup from the parent of ours up to the root; empty on v1."""
    if cgroups.version is not CgroupVersion.V2:
        return {}
    base = own_base(cgroups)
    above = [cgroup for cgroup in (base, *base.parents) if cgroup.is_relative_to(cgroups.memory_root)]
    return {
        cgroup: SubtreeState(enabled_controllers(cgroup), frozenset(child.name for child in _others(cgroup)))
        for cgroup in above
    }


def disable_added(before: Mapping[Path, SubtreeState]) -> dict[Path, SubtreeState]:
    """Disable what was not enabled before, deepest cgroup first; returns the states of those that failed, for a retry.

    A controller that another cgroup may use by now stays enabled and does not count as failed.
    """
    failed = {}
    for cgroup, state in before.items():
        if added := enabled_controllers(cgroup) - state.controllers - {_KEPT}:
            try:
                for controller in sorted(added - _in_use(cgroup, state, added)):
                    (cgroup / "cgroup.subtree_control").write_text(f"-{controller}", encoding="ascii")
            except OSError:
                failed[cgroup] = state
    return failed


def _in_use(cgroup: Path, before: SubtreeState, added: frozenset[str]) -> frozenset[str]:
    """The added controllers that a child which is not ours may use. Raises OSError if that cannot be read.

    A child that was created since may use any of them, if only for accounting. An older child used none of them before;
    it uses one now if it enables it for its own children, or has a setting that differs from a new cgroup's.
    """
    others = list(_others(cgroup))
    if any(child.name not in before.children for child in others):
        return added
    with _new_cgroup(cgroup) as new:
        return frozenset(
            controller
            for controller in added
            for child in others
            if controller in enabled_controllers(child) or _settings(child, controller) != _settings(new, controller)
        )


def _others(cgroup: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (child for child in cgroup.iterdir() if child.is_dir() and not child.name.startswith(OWN_PREFIX))


@contextmanager
def _new_cgroup(cgroup: Path) -> Iterator[Path]:
    new = cgroup / f"{OWN_PREFIX}-just-made"
    new.mkdir(exist_ok=True)
    try:
        yield new
    finally:
        new.rmdir()


def _settings(cgroup: Path, controller: str) -> dict[str, str]:
    """The present values of a controller's writable files, without pressure triggers, which are not settings."""
    files = (file for file in cgroup.glob(f"{controller}.*") if file.suffix != ".pressure")
    return {file.name: file.read_text("ascii") for file in files if file.stat().st_mode & stat.S_IWUSR}
