"""The delegated part of a v2 tree, in temporary directories with real extended attributes."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.node import delegation
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.delegation import LEAF, delegated, enter_leaf, own_base
from kickwatch.workload.canary import CANARY_GROUP, remove_leftovers

UNIT = "system.slice/kickwatch.service"


def node(tmp_path: Path, cgroup: str = UNIT, version: CgroupVersion = CgroupVersion.V2) -> tuple[Cgroups, Path]:
    """A v2 tree in which this process is in `cgroup`; returns it and the directory of that cgroup."""
    own = tmp_path / "sys" / cgroup
    own.mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"0::/{cgroup}\n")
    return Cgroups(version, tmp_path / "sys", "/", (tmp_path / "sys",), tmp_path / "proc"), own


def give_away(cgroup: Path) -> None:
    try:
        os.setxattr(cgroup, "user.delegate", b"1")
    except OSError:
        os.setxattr(cgroup, "trusted.delegate", b"1")


def test_the_process_moves_from_a_delegated_cgroup_to_its_leaf(tmp_path: Path) -> None:
    cgroups, own = node(tmp_path)
    give_away(own)
    assert delegated(own)
    (own / LEAF).mkdir()
    (own / LEAF / "cgroup.procs").touch()
    assert enter_leaf(cgroups) == own / LEAF
    assert (own / LEAF / "cgroup.procs").read_text() == str(os.getpid())
    cgroups, leaf = node(tmp_path, f"{UNIT}/{LEAF}")
    assert enter_leaf(cgroups) == leaf
    assert own_base(cgroups) == own


def test_nothing_moves_without_delegation(tmp_path: Path) -> None:
    cgroups, own = node(tmp_path)
    assert not delegated(own)
    assert enter_leaf(cgroups) is None
    assert not (own / LEAF).exists()
    assert own_base(cgroups) == cgroups.memory_root
    cgroups, _ = node(tmp_path, f"{UNIT}/{LEAF}")
    assert own_base(cgroups) == cgroups.memory_root


def test_on_v1_nothing_moves(tmp_path: Path) -> None:
    cgroups, own = node(tmp_path, version=CgroupVersion.V1)
    give_away(own)
    assert enter_leaf(cgroups) is None
    assert own_base(cgroups) == cgroups.memory_root


def test_on_v1_a_service_that_may_not_write_at_the_root_has_its_units_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of a hierarchy has the mode 0555, and the service no CAP_DAC_OVERRIDE: it never made a canary."""
    cgroups, own = node(tmp_path, version=CgroupVersion.V1)
    (tmp_path / "proc/self/cgroup").write_text(f"4:memory:/{UNIT}\n")
    monkeypatch.setattr(delegation, "writable", lambda cgroup: cgroup != cgroups.memory_root)
    assert own_base(cgroups) == own
    canary = cgroups.memory_root / CANARY_GROUP  # of a killed `kickwatch trial`
    canary.mkdir()
    (own / CANARY_GROUP).mkdir()
    monkeypatch.setattr("kickwatch.workload.canary.writable", delegation.writable)
    monkeypatch.setattr("kickwatch.workload.canary.reclaim", lambda _: "")
    assert remove_leftovers(cgroups) == ()
    assert (canary.exists(), (own / CANARY_GROUP).exists()) == (True, False)


def test_a_leaf_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    cgroups, own = node(tmp_path)
    give_away(own)
    (own / LEAF).touch()
    with pytest.raises(CgroupError, match=r"daemon cannot be entered .*Delegate=yes"):
        enter_leaf(cgroups)


def test_a_container_that_sees_its_own_cgroup_read_only_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the systemd driver systemd marks a container's cgroup as delegated; the mount in it is read-only."""
    cgroups, own = node(tmp_path)
    give_away(own)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert enter_leaf(cgroups) is None
    assert own_base(cgroups) == cgroups.memory_root


def test_a_container_with_the_hosts_tree_makes_its_cgroups_at_the_top(tmp_path: Path) -> None:
    """In a cgroup namespace three levels down the host's mount begins at `/../../..`, and this process is in `/`."""
    cgroups, _ = node(tmp_path, "")
    inside = dataclasses.replace(cgroups, memory_mount_root="/../../..")
    assert (enter_leaf(inside), own_base(inside)) == (None, inside.memory_root)
