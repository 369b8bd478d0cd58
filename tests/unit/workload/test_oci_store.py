"""The files of an engine without a daemon: what a killed kickwatch left, and who may have written them."""

from pathlib import Path

import pytest

from kickwatch.node.cgroups import Cgroups
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.oci_store import Store

IMAGE = "localhost/kickwatch-workload:0123456789ab"


def spec(name: str, instance: str = "i") -> ContainerSpec:
    return ContainerSpec(
        name=name, instance=instance, trial="t", image=IMAGE, command=(), network="none", cgroup_parent="/kickwatch"
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "run" / "oci", Path("/proc"))
    made.write_image(IMAGE, b"program")
    return made


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    """Two hierarchies without a container."""
    mounts = (tmp_path / "memory", tmp_path / "pids")
    for mount in mounts:
        mount.mkdir()
    return Cgroups(1, mounts[0], "/", mounts, Path("/proc"))


def test_a_sweep_removes_ours_and_leaves_those_of_others(store: Store, cgroups: Cgroups) -> None:
    store.write_bundle(spec("kickwatch-1-0"), seccomp=True)
    store.write_bundle(spec("kickwatch-2-0", "another"), seccomp=True)
    (cgroups.memory_root / "kickwatch/kickwatch-1-0").mkdir(parents=True)
    (store.state / "kickwatch-1-0").mkdir()
    assert store.sweep("i", cgroups) == 1
    assert [path.name for path in (store.root / "bundles").iterdir()] == ["kickwatch-2-0"]
    assert store.image_of(IMAGE).exists()
    assert not (cgroups.memory_root / "kickwatch").exists()
    assert store.sweep("another", cgroups) == 1
    assert not store.root.exists()
    assert store.sweep("i", cgroups) == 0


def test_what_was_half_made_or_half_removed_goes(store: Store, cgroups: Cgroups) -> None:
    (store.root / "bundles/.kickwatch-3-0").mkdir()  # its register is gone, or not written yet
    assert store.sweep("i", cgroups) == 0
    assert not store.root.exists()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_may_write_into_is_refused(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(PermissionError, match="it is not ours alone"):
        Store(shared / "oci", Path("/proc")).write_image(IMAGE, b"program")


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "oci").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        Store(tmp_path / "oci", Path("/proc")).write_image(IMAGE, b"program")
