"""The files of an engine without a daemon: what a killed kickwatch left, and who may have written them."""

from errno import EROFS
from pathlib import Path

import pytest

from kickwatch.node.cgroups import Cgroups
from kickwatch.node.handed_on import Noted
from kickwatch.workload.engine import ContainerSpec
from kickwatch.workload.oci_store import BundleStore

IMAGE = "localhost/kickwatch-workload:0123456789ab"


def spec(name: str, instance: str = "i") -> ContainerSpec:
    return ContainerSpec(
        name=name, instance=instance, trial="t", image=IMAGE, command=(), network="none", cgroup_parent="/kickwatch"
    )


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    made = BundleStore(tmp_path / "run" / "oci", Path("/proc"))
    made.write_image(IMAGE, b"program")
    return made


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    """Two hierarchies without a container."""
    mounts = (tmp_path / "memory", tmp_path / "pids")
    for mount in mounts:
        mount.mkdir()
    return Cgroups(1, mounts[0], "/", mounts, Path("/proc"))


def test_a_sweep_removes_ours_and_leaves_those_of_others(store: BundleStore, cgroups: Cgroups) -> None:
    store.write_bundle(spec("kickwatch-1-0"), seccomp=True)
    store.write_bundle(spec("kickwatch-2-0", "another"), seccomp=True)
    (cgroups.memory_root / "kickwatch/kickwatch-1-0").mkdir(parents=True)
    (store.state / "kickwatch-1-0").mkdir()
    assert store.remove_leftovers("i", cgroups) == 1
    assert [path.name for path in (store.root / "bundles").iterdir()] == ["kickwatch-2-0"]
    assert store.image_of(IMAGE).exists()
    assert not (cgroups.memory_root / "kickwatch").exists()
    assert store.remove_leftovers("another", cgroups) == 1
    assert not store.root.exists()
    assert store.remove_leftovers("i", cgroups) == 0


def test_what_was_half_made_or_half_removed_goes(store: BundleStore, cgroups: Cgroups) -> None:
    (store.root / "bundles/.kickwatch-3-0").mkdir()  # its register is gone, or not written yet
    assert store.remove_leftovers("i", cgroups) == 0
    assert not store.root.exists()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_may_write_into_is_refused(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(PermissionError, match="only this user can write to"):
        BundleStore(shared / "oci", Path("/proc")).write_image(IMAGE, b"program")


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "oci").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        BundleStore(tmp_path / "oci", Path("/proc")).write_image(IMAGE, b"program")


def handing_on(directory: Path, controllers: str) -> Path:
    """A v2 cgroup whose children have these controllers."""
    directory.mkdir()
    (directory / "cgroup.subtree_control").write_text(controllers)
    return directory


def noted(way: Path, *controllers: str) -> dict[Path, Noted]:
    return {way: Noted(frozenset(controllers))}


def test_what_a_killed_one_noted_outlives_a_second_look(store: BundleStore, tmp_path: Path) -> None:
    """The second start finds on what the first one's runtime switched on."""
    way = handing_on(tmp_path / "root", "hugetlb pids")
    store.controllers.add(noted(way, "pids"))
    store.controllers.add(noted(way, "hugetlb", "pids") | noted(tmp_path / "new", "cpu"))
    store.restore_controllers()
    assert (way / "cgroup.subtree_control").read_text() == "-hugetlb"
    (way / "cgroup.subtree_control").write_text("hugetlb")
    store.restore_controllers()  # it is forgotten
    assert (way / "cgroup.subtree_control").read_text() == "hugetlb"


@pytest.mark.parametrize("note", ["", "[1]", '{"/sys/fs/cgroup": "cpu"}'])
def test_a_note_that_nobody_can_read_is_none(store: BundleStore, tmp_path: Path, note: str) -> None:
    way = handing_on(tmp_path / "root", "pids")
    (store.root / "handed-on.json").write_text(note)
    store.controllers.add(noted(way))
    store.restore_controllers()
    assert (way / "cgroup.subtree_control").read_text() == "-pids"


def test_what_cannot_be_taken_back_is_tried_again_by_the_next(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, other = handing_on(tmp_path / "root", "pids"), handing_on(tmp_path / "root/kickwatch.service", "pids")
    store.controllers.add(noted(way))
    store.controllers.add(noted(other) | noted(way, "pids"))  # another start, elsewhere in the tree
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        store.restore_controllers()
    assert (way / "cgroup.subtree_control").read_text() == "pids"
    store.restore_controllers()
    assert [(cgroup / "cgroup.subtree_control").read_text() for cgroup in (other, way)] == ["-pids", "-pids"]
    assert not (store.root / "handed-on.json").exists()


def refuse(*_: object, **__: object) -> None:
    raise OSError(EROFS, "Read-only file system")


def test_a_note_of_another_boot_is_none(tmp_path: Path) -> None:
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    (tmp_path / "oci").mkdir()
    store, way = BundleStore(tmp_path / "oci", tmp_path / "proc"), handing_on(tmp_path / "root", "pids")
    boot.write_text("one")
    store.controllers.add(noted(way))
    boot.write_text("another")
    store.restore_controllers()
    assert (way / "cgroup.subtree_control").read_text() == "pids"


def test_a_sweep_takes_back_what_a_killed_one_noted(store: BundleStore, cgroups: Cgroups, tmp_path: Path) -> None:
    way = handing_on(tmp_path / "root", "hugetlb memory")
    store.controllers.add(noted(way, "memory"))
    assert store.remove_leftovers("i", cgroups) == 0
    assert (way / "cgroup.subtree_control").read_text() == "-hugetlb"
    assert not store.root.exists()
