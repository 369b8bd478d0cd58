"""The files of the oci engine: leftovers of a killed kickwatch, and directories that others may write to."""

from errno import EBUSY, EROFS
from pathlib import Path

import pytest

from kickwatch.errors import CgroupError
from kickwatch.node.cgroups import Cgroups
from kickwatch.node.subtree_control import SubtreeState
from kickwatch.workload import oci_store
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
    """Two hierarchies without containers."""
    mounts = (tmp_path / "memory", tmp_path / "pids")
    for mount in mounts:
        mount.mkdir()
    return Cgroups(1, mounts[0], "/", mounts, Path("/proc"))


def test_a_leftover_that_stays_mounted_keeps_no_other(
    store: BundleStore, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kickwatch-1-0", "kickwatch-2-0"):
        store.write_bundle(spec(name), seccomp=True)
    remove = oci_store.shutil.rmtree

    def rmtree(path: Path, *arguments: object, **options: object) -> None:
        if path == store.state / "kickwatch-1-0":
            raise OSError(EBUSY, "Device or resource busy")
        remove(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(oci_store.shutil, "rmtree", rmtree)
    with pytest.raises(OSError, match="busy"):
        store.remove_leftovers("i", cgroups)
    assert list(store.own_containers("i")) == ["kickwatch-1-0"]


def test_leftovers_of_this_instance_are_removed_and_others_kept(store: BundleStore, cgroups: Cgroups) -> None:
    store.write_bundle(spec("kickwatch-1-0"), seccomp=True)
    store.write_bundle(spec("kickwatch-2-0", "another"), seccomp=True)
    (cgroups.memory_root / "kickwatch/kickwatch-1-0").mkdir(parents=True)
    (store.state / "kickwatch-1-0").mkdir()
    assert store.remove_leftovers("i", cgroups) == 1
    assert [path.name for path in (store.root / "bundles").iterdir()] == ["kickwatch-2-0"]
    assert store.image_of(IMAGE).exists()
    assert not (cgroups.memory_root / "kickwatch").exists()
    assert store.remove_leftovers("another", cgroups) == 1
    assert not store.root.parent.exists()  # it was made for the store
    assert store.remove_leftovers("i", cgroups) == 0


def test_a_leftover_that_stays_keeps_no_other(
    store: BundleStore, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        store.write_bundle(spec(f"kickwatch-{number}-0"), seccomp=True)
    stuck, remove = next(iter(store.own_containers("i"))), store.remove_cgroups

    def remove_cgroups(container_id: str, found: Cgroups) -> None:
        if container_id == stuck:
            raise CgroupError(f"{stuck} is in use and stays", "")
        remove(container_id, found)

    monkeypatch.setattr(store, "remove_cgroups", remove_cgroups)
    with pytest.raises(CgroupError, match="in use and stays"):
        store.remove_leftovers("i", cgroups)
    assert list(store.own_containers("i")) == [stuck]


def test_a_service_that_may_not_write_at_the_root_removes_the_leftovers_below(
    store: BundleStore, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CAP_DAC_OVERRIDE, on cgroup v1: its unit removes the parent with ExecStopPost=."""
    monkeypatch.setattr(oci_store, "writable", lambda directory: directory != cgroups.memory_root)
    for number in range(2):
        store.write_bundle(spec(f"kickwatch-{number}-0"), seccomp=True)
        (cgroups.memory_root / f"kickwatch/kickwatch-{number}-0").mkdir(parents=True)
    assert store.remove_leftovers("i", cgroups) == 2
    assert [*(cgroups.memory_root / "kickwatch").iterdir()] == []


def test_a_process_that_is_being_reaped_is_no_member(store: BundleStore, cgroups: Cgroups) -> None:
    """The kernel lists it as 0: to wait for process 0 is an error (EINVAL), which would keep the container."""
    store.write_bundle(spec("kickwatch-1-0"), seccomp=True)
    cgroup = cgroups.memory_root / "kickwatch/kickwatch-1-0"
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("0\n31\n")
    assert store.members("kickwatch-1-0", cgroups) == {31}


def test_partial_bundles_are_removed(store: BundleStore, cgroups: Cgroups) -> None:
    (store.root / "bundles/.kickwatch-3-0").mkdir()  # its config.json is removed, or not written yet
    assert store.remove_leftovers("i", cgroups) == 0
    assert not store.root.exists()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(PermissionError, match="only this user can write to"):
        BundleStore(shared / "oci", Path("/proc")).write_image(IMAGE, b"program")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "oci").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        BundleStore(tmp_path / "oci", Path("/proc")).write_image(IMAGE, b"program")


def cgroup_with(directory: Path, controllers: str) -> Path:
    """A v2 cgroup that enables these controllers for its children."""
    directory.mkdir()
    (directory / "cgroup.subtree_control").write_text(controllers)
    return directory


def record_of(cgroup: Path, *controllers: str) -> dict[Path, SubtreeState]:
    return {cgroup: SubtreeState(frozenset(controllers))}


def test_the_record_of_a_killed_kickwatch_is_kept(store: BundleStore, tmp_path: Path) -> None:
    """At the second start the controllers are enabled that the first one's runtime has enabled."""
    cgroup = cgroup_with(tmp_path / "root", "hugetlb pids")
    store.controllers.add(record_of(cgroup, "pids"))
    store.controllers.add(record_of(cgroup, "hugetlb", "pids") | record_of(tmp_path / "new", "cpu"))
    store.restore_controllers()
    assert (cgroup / "cgroup.subtree_control").read_text() == "-hugetlb"
    (cgroup / "cgroup.subtree_control").write_text("hugetlb")
    store.restore_controllers()  # the record is gone
    assert (cgroup / "cgroup.subtree_control").read_text() == "hugetlb"


@pytest.mark.parametrize("note", ["", "[1]", '{"/sys/fs/cgroup": "cpu"}'])
def test_an_unreadable_record_counts_as_none(store: BundleStore, tmp_path: Path, note: str) -> None:
    cgroup = cgroup_with(tmp_path / "root", "pids")
    (store.root / "handed-on.json").write_text(note)
    store.controllers.add(record_of(cgroup))
    store.restore_controllers()
    assert (cgroup / "cgroup.subtree_control").read_text() == "-pids"


def test_a_failed_restoration_is_retried_at_the_next(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup, other = cgroup_with(tmp_path / "root", "pids"), cgroup_with(tmp_path / "root/kickwatch.service", "pids")
    store.controllers.add(record_of(cgroup))
    store.controllers.add(record_of(other) | record_of(cgroup, "pids"))  # a start in another cgroup
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", fail_read_only)
        store.restore_controllers()
    assert (cgroup / "cgroup.subtree_control").read_text() == "pids"
    store.restore_controllers()
    assert [(cgroup / "cgroup.subtree_control").read_text() for cgroup in (other, cgroup)] == ["-pids", "-pids"]
    assert not (store.root / "handed-on.json").exists()


def fail_read_only(*_: object, **__: object) -> None:
    raise OSError(EROFS, "Read-only file system")


def test_a_record_of_another_boot_counts_as_none(tmp_path: Path) -> None:
    boot = tmp_path / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    (tmp_path / "oci").mkdir()
    store, cgroup = BundleStore(tmp_path / "oci", tmp_path / "proc"), cgroup_with(tmp_path / "root", "pids")
    boot.write_text("one")
    store.controllers.add(record_of(cgroup))
    boot.write_text("another")
    store.restore_controllers()
    assert (cgroup / "cgroup.subtree_control").read_text() == "pids"


def test_removing_leftovers_restores_the_controllers(store: BundleStore, cgroups: Cgroups, tmp_path: Path) -> None:
    cgroup = cgroup_with(tmp_path / "root", "hugetlb memory")
    store.controllers.add(record_of(cgroup, "memory"))
    assert store.remove_leftovers("i", cgroups) == 0
    assert (cgroup / "cgroup.subtree_control").read_text() == "-hugetlb"
    assert not store.root.exists()
