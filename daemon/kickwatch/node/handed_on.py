"""cgroup v2: what the cgroups above ours hand on, and taking back what a runtime made them hand on beyond that.

runc and crun, given a cgroup, switch on every controller there is from the root down to it, and leave them on: whatever
else lies there is then accounted for by controllers that nobody asked for.

The kernel refuses to switch a controller off only where a child hands it on itself. A child that merely uses it would
lose its limits without a word: so a controller stays that anybody may have come to use.
"""

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from kickwatch.node.cgroups import OWN_PREFIX, Cgroups, CgroupVersion, handed_on_by
from kickwatch.node.delegation import own_base

_KEPT = "memory"  # which we hand on ourselves, as long as there are memory cgroups of ours


class Noted(msgspec.Struct, frozen=True):
    """Of one cgroup: the controllers that it hands on, and the names of its children."""

    controllers: frozenset[str]
    children: frozenset[str] = frozenset()


def handed_on(cgroups: Cgroups) -> dict[Path, Noted]:
    """Each cgroup from where ours belong up to the root; nothing on v1."""
    if cgroups.version is not CgroupVersion.V2:
        return {}
    base = own_base(cgroups)
    ways = [way for way in (base, *base.parents) if way.is_relative_to(cgroups.memory_root)]
    return {way: Noted(handed_on_by(way), frozenset(child.name for child in _others(way))) for way in ways}


def take_back(before: Mapping[Path, Noted]) -> dict[Path, Noted]:
    """Switch off what was not on before, the deepest cgroup first; returns where that failed, to be tried again.

    What somebody else may use by now stays on, and is theirs: it does not come back as failed.
    """
    failed = {}
    for way, noted in before.items():
        if added := handed_on_by(way) - noted.controllers - {_KEPT}:
            try:
                for controller in sorted(added - _wanted(way, noted, added)):
                    (way / "cgroup.subtree_control").write_text(f"-{controller}", encoding="ascii")
            except OSError:
                failed[way] = noted
    return failed


def _wanted(way: Path, noted: Noted, added: frozenset[str]) -> frozenset[str]:
    """The controllers that a child which is not ours may use; OSError where that cannot be found out.

    One that has come since may use any, if only to be accounted for. One that was there used none, until it hands it on
    or has a setting that is not as in a cgroup just made.
    """
    others = list(_others(way))
    if any(child.name not in noted.children for child in others):
        return added
    with _just_made(way) as fresh:
        return frozenset(
            controller
            for controller in added
            for child in others
            if controller in handed_on_by(child) or _settings(child, controller) != _settings(fresh, controller)
        )


def _others(way: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (child for child in way.iterdir() if child.is_dir() and not child.name.startswith(OWN_PREFIX))


@contextmanager
def _just_made(way: Path) -> Iterator[Path]:
    fresh = way / f"{OWN_PREFIX}-just-made"
    fresh.mkdir(exist_ok=True)
    try:
        yield fresh
    finally:
        fresh.rmdir()


def _settings(cgroup: Path, controller: str) -> dict[str, str]:
    """What can be set of a controller, as it is; triggers of pressure are none of its settings."""
    files = (file for file in cgroup.glob(f"{controller}.*") if file.suffix != ".pressure")
    return {file.name: file.read_text("ascii") for file in files if file.stat().st_mode & stat.S_IWUSR}
