"""The reaper: it tries to remove all that is ours, whatever fails, and touches nothing else."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError, EngineError
from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.node.roots import HostRoots
from kickwatch.workload import reaper
from kickwatch.workload.names import CONTAINERS_SLICE, cgroup_parent, instance_of, new_trial_id, read_instance
from kickwatch.workload.reaper import ids_below, reap_cgroups, reap_containers, stop_slice

HIERARCHIES = ("cpu", "memory", "pids")


@dataclass
class FakeEngine:
    """Has containers, some of which cannot be removed."""

    containers: list[str]
    stuck: Sequence[str] = ()
    instances: list[str] = field(default_factory=list)

    async def own_containers(self, instance: str) -> Sequence[str]:
        self.instances.append(instance)
        return list(self.containers)

    async def remove(self, container_id: str) -> None:
        if container_id in self.stuck:
            raise EngineError(f"could not remove {container_id}")
        self.containers.remove(container_id)


async def test_all_containers_of_the_instance_are_removed() -> None:
    engine = FakeEngine(["a", "b"])
    assert await reap_containers(engine, "node-1") == 2
    assert engine.containers == []
    assert engine.instances == ["node-1"]
    assert await reap_containers(engine, "node-1") == 0


async def test_a_failed_removal_does_not_stop_the_others() -> None:
    engine = FakeEngine(["a", "b", "c", "d"], stuck=("a", "c"))
    with pytest.raises(EngineError, match="could not remove a"):
        await reap_containers(engine, "node-1")
    assert engine.containers == ["a", "c"]


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    """Three hierarchies, each with our parent, a container's cgroup below it, and another engine's cgroups."""
    mounts = tuple(tmp_path / name for name in HIERARCHIES)
    for mount in mounts:
        (mount / "kickwatch/abc").mkdir(parents=True)
        (mount / "docker/xyz").mkdir(parents=True)
    return Cgroups(CgroupVersion.V1, tmp_path / "memory", "/", mounts, tmp_path / "proc")


def remaining(cgroups: Cgroups) -> list[str]:
    """The hierarchies that still have our parent."""
    return [mount.name for mount in cgroups.mounts if (mount / "kickwatch").exists()]


def test_our_parents_are_removed_from_every_hierarchy(cgroups: Cgroups) -> None:
    reap_cgroups(cgroups, ("kickwatch", "kickwatch-absent"))
    assert remaining(cgroups) == []
    assert all((mount / "docker/xyz").is_dir() for mount in cgroups.mounts)
    reap_cgroups(cgroups, ("kickwatch",))  # nothing to remove is no error


def test_where_only_the_unit_may_remove_the_parent_it_is_emptied(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roots of hierarchies have the mode 0555, and the service no CAP_DAC_OVERRIDE."""
    monkeypatch.setattr(reaper, "writable", lambda _: False)
    reap_cgroups(cgroups, ("kickwatch",))
    assert remaining(cgroups) == list(HIERARCHIES)
    assert not any(any((mount / "kickwatch").iterdir()) for mount in cgroups.mounts)


def test_a_failed_hierarchy_does_not_stop_the_others(cgroups: Cgroups) -> None:
    for name in ("cpu", "memory"):
        (cgroups.mounts[0].parent / name / "kickwatch/abc/file").write_text("no cgroup has such a file")
    with pytest.raises(CgroupError) as caught:
        reap_cgroups(cgroups, ("kickwatch",))
    assert remaining(cgroups) == ["cpu", "memory"]
    assert f"{cgroups.mounts[0]}/kickwatch/abc cannot be removed" in caught.value.what
    assert "(and 1 more)" in caught.value.what
    assert caught.value.remedy == "remove it with rmdir"


ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(("in_use", "later"), [("abc", 3), (ID, 20)])
def test_a_cgroup_in_use_stays_and_is_an_error_with_a_remedy(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, in_use: str, later: int
) -> None:
    """Beside another's container a dozen hierarchies would take a dozen seconds; what is ours has that time to end."""
    used = cgroups.memory_root / "kickwatch" / in_use
    used.mkdir(exist_ok=True)
    (used / "cgroup.procs").write_text("12\n")
    directories: list[Path] = []
    tried: list[int] = []

    def remove_tree(directory: Path, *, kill: Callable[[Path], bool], attempts: int, top: bool) -> tuple[Path, ...]:
        directories.append(directory)
        tried.append(attempts)
        return (directory / in_use, directory) if directory.parent.name == "memory" else ()

    monkeypatch.setattr(reaper, "remove_tree", remove_tree)
    with pytest.raises(CgroupError) as caught:
        reap_cgroups(cgroups, ("kickwatch",), {ID})
    assert directories == [mount / "kickwatch" for mount in cgroups.mounts]
    assert caught.value.what == f"{used} is in use and stays (and 1 more)"
    assert "cgroup.procs" in caught.value.remedy
    stayed = next(at for at, directory in enumerate(directories) if directory.parent.name == "memory")
    assert set(tried[: stayed + 1]) == {20}
    assert set(tried[stayed + 1 :]) <= {later}


OTHER_ID = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("below", "killed"),
    [
        (ID, True),
        (f"{ID}/init", True),
        (f"docker-{ID}.scope", True),
        (f"libpod-{ID}", True),
        (f"libpod-conmon-{ID}.scope", True),
        (f"cri-containerd-{ID}.scope", True),
        (f"crio-{ID}", True),
        ("kickwatch-1f2e3d4c-0", True),
        ("", False),
        (OTHER_ID, False),
        (f"docker-{OTHER_ID}.scope", False),
        ("theirs", False),
        (f"theirs/{ID}", False),
        ("kickwatch-agent", False),
    ],
)
def test_only_processes_of_containers_that_kickwatch_started_are_killed(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, below: str, killed: bool
) -> None:
    """A container of another user with the cgroup parent /kickwatch has a cgroup of the same form."""
    permits: list[bool] = []

    def remove_tree(directory: Path, *, kill: Callable[[Path], bool], attempts: int, top: bool) -> tuple[Path, ...]:
        permits.append(kill(directory / below))
        return ()

    monkeypatch.setattr(reaper, "remove_tree", remove_tree)
    reap_cgroups(cgroups, ("kickwatch",), {ID})
    assert permits == [killed] * len(HIERARCHIES)


def test_what_is_not_recorded_is_not_killed(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove_tree(directory: Path, *, kill: Callable[[Path], bool], attempts: int, top: bool) -> tuple[Path, ...]:
        assert not kill(directory / ID)
        return ()

    monkeypatch.setattr(reaper, "remove_tree", remove_tree)
    reap_cgroups(cgroups, ("kickwatch",))


def test_ids_are_those_of_the_cgroups_right_below_our_parents(cgroups: Cgroups) -> None:
    for name in (ID, f"docker-{OTHER_ID}.scope", "theirs"):
        (cgroups.mounts[0] / "kickwatch" / name).mkdir()
    (cgroups.mounts[1] / "kickwatch/theirs" / ("a" * 64)).mkdir(parents=True)
    assert ids_below(cgroups, ("kickwatch", "absent")) == {ID, OTHER_ID}


def test_a_parent_that_vanishes_while_it_is_listed_has_no_containers(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stopped slice, or another's last container below our parent. Mocked: it is still there when it is looked at."""
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    assert ids_below(cgroups, ("absent",)) == frozenset()
    assert reaper._others_below(tmp_path / "absent", ()) is False
    assert reaper._has_units("absent", cgroups) is False


def test_a_slice_that_cannot_be_listed_is_left_alone(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock: no descriptor is left. Stopping the slice would kill what is in it."""

    def refuse(_: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "scandir", refuse)
    assert reaper._has_units("kickwatch", cgroups) is True
    assert reaper._others_below(cgroups.mounts[0] / "kickwatch", ()) is False
    with pytest.raises(OSError, match="Too many open files"):
        ids_below(cgroups, ("kickwatch",))


def test_a_hierarchy_that_cannot_be_listed_is_an_error(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path, *, kill: Callable[[Path], bool], attempts: int, top: bool) -> tuple[Path, ...]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reaper, "remove_tree", refuse)
    with pytest.raises(CgroupError, match=r"cpu/kickwatch cannot be listed \(Permission denied\) \(and 2 more\)"):
        reap_cgroups(cgroups, ("kickwatch",))


def test_cgroups_of_others_are_refused(cgroups: Cgroups) -> None:
    with pytest.raises(CgroupError, match="docker is not one of ours"):
        reap_cgroups(cgroups, ("docker",))
    assert all((mount / "docker/xyz").is_dir() for mount in cgroups.mounts)


@dataclass
class SystemdNode:
    """A node whose pid 1 is systemd, with a systemctl that records its arguments."""

    root: Path

    @property
    def systemctl(self) -> Path:
        return self.root / "systemctl"

    @property
    def slice(self) -> Path:
        return self.root / "sys/fs/cgroup" / CONTAINERS_SLICE

    def prepare(self, status: int = 0) -> None:
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "proc/self").mkdir(parents=True)
        mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        (self.root / "proc/self/mountinfo").write_text(mount)
        self.slice.mkdir(parents=True)
        (self.slice / "cgroup.procs").write_text("")
        self.systemctl.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/calls\necho "the  reason" >&2\nexit {status}\n')
        self.systemctl.chmod(0o755)

    def stop(self, name: str = CONTAINERS_SLICE) -> bool:
        return stop_slice(name, host=HostRoots.below(self.root), systemctl=self.systemctl)

    def calls(self) -> str:
        return (self.root / "calls").read_text() if (self.root / "calls").exists() else ""


def test_a_slice_without_scopes_is_stopped(tmp_path: Path) -> None:
    node = SystemdNode(tmp_path)
    node.prepare()
    assert node.stop() is True
    assert node.calls() == "stop kickwatchcontainers.slice\n"


def test_a_slice_with_a_scope_is_left_alone(tmp_path: Path) -> None:
    node = SystemdNode(tmp_path)
    node.prepare()
    (node.slice / "docker-abc.scope").mkdir()
    assert node.stop() is False
    assert node.calls() == ""


def test_without_systemd_nothing_is_stopped(tmp_path: Path) -> None:
    node = SystemdNode(tmp_path)
    node.prepare()
    (tmp_path / "run/systemd/system").rmdir()
    assert node.stop() is False
    assert node.calls() == ""


def test_a_slice_unknown_to_systemd_counts_as_stopped(tmp_path: Path) -> None:
    node = SystemdNode(tmp_path)
    node.prepare(status=5)
    assert node.stop() is True


def test_a_slice_that_cannot_be_stopped_is_an_error(tmp_path: Path) -> None:
    node = SystemdNode(tmp_path)
    node.prepare(status=1)
    with pytest.raises(
        CgroupError, match=r"could not be stopped \(the reason\): systemctl stop kickwatchcontainers.slice"
    ):
        node.stop()
    node.systemctl.unlink()
    with pytest.raises(CgroupError, match="No such file"):
        node.stop()


@pytest.mark.parametrize("name", ["system.slice", "kickwatch", "kickwatch/../system.slice"])
def test_slices_of_others_are_refused(tmp_path: Path, name: str) -> None:
    node = SystemdNode(tmp_path)
    node.prepare()
    with pytest.raises(CgroupError, match="is not one of ours"):
        node.stop(name)
    assert node.calls() == ""


def test_the_containers_slice_is_not_below_the_service_slice() -> None:
    """systemd nests slices by the dashes of their names."""
    parent = cgroup_parent("systemd")
    assert parent == CONTAINERS_SLICE
    assert "-" not in parent
    assert parent != "kickwatch.slice"
    assert cgroup_parent("cgroupfs") == "/kickwatch"


def test_the_instance_is_stable_and_hides_the_machine_id(tmp_path: Path) -> None:
    machine_id = "0123456789abcdef0123456789abcdef"
    (tmp_path / "machine-id").write_text(f"{machine_id}\n")
    instance = read_instance(tmp_path)
    assert instance == instance_of(machine_id, "another-hostname")
    assert len(instance) == 12
    assert instance not in machine_id
    assert instance_of("", "host-a") != instance_of("", "host-b")
    assert read_instance(tmp_path / "absent")
    assert new_trial_id() != new_trial_id()
