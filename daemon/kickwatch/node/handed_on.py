"""cgroup v2: what the cgroups above ours hand on, and taking back what a runtime made them hand on beyond that.

runc and crun, given a cgroup, switch on every controller there is from the root down to it, and leave them on: whatever
else lies there is then accounted for by controllers that nobody asked for.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kickwatch.node.cgroups import Cgroups, CgroupVersion, handed_on_by
from kickwatch.node.delegation import own_base

_KEPT = "memory"  # which we hand on ourselves, as long as there are memory cgroups of ours


def handed_on(cgroups: Cgroups) -> dict[Path, frozenset[str]]:
    """The controllers in each cgroup.subtree_control from where our cgroups belong up to the root; nothing on v1."""
    if cgroups.version is not CgroupVersion.V2:
        return {}
    base = own_base(cgroups)
    ways = [way for way in (base, *base.parents) if way.is_relative_to(cgroups.memory_root)]
    return {way: handed_on_by(way) for way in ways}


def take_back(before: Mapping[Path, frozenset[str]]) -> None:
    """Switch off what was not on before, the deepest cgroup first.

    The kernel refuses where a cgroup below has come to hand it on as well, which somebody then wants: it stays.
    """
    for way, had in before.items():
        for controller in sorted(handed_on_by(way) - had - {_KEPT}):
            with suppress(OSError):
                (way / "cgroup.subtree_control").write_text(f"-{controller}", encoding="ascii")
