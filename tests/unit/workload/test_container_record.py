"""Which containers kickwatch has started is on disk, and stays there as long as something of them is left."""

from pathlib import Path

import pytest

from kickwatch.workload.container_record import ContainerRecord, id_of

ONE, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kickwatch" / "containers"


def test_what_a_killed_kickwatch_started_is_known_to_the_next(file: Path) -> None:
    ContainerRecord(file).add((ONE,))
    ContainerRecord(file).add((OTHER, "pod"))
    assert ContainerRecord(file).read() == {ONE, OTHER, "pod"}


def test_it_has_only_what_is_left(file: Path) -> None:
    """A daemon under stress starts ten thousand containers a day."""
    record = ContainerRecord(file)
    record.add((ONE, OTHER))
    record.retain({ONE, "another's"})
    assert record.read() == {ONE}
    record.retain(())
    assert not file.exists()
    record.retain(())


def test_a_trial_by_hand_leaves_no_directory(file: Path) -> None:
    """It made the directory. One that systemd-tmpfiles made is for the drain file, too, and stays."""
    record = ContainerRecord(file)
    record.add((ONE,))
    record.retain(())
    assert not file.parent.exists()
    file.parent.mkdir()
    record.add((ONE,))
    record.retain(())
    assert file.parent.exists()


def test_a_record_that_cannot_be_used_records_nothing(tmp_path: Path) -> None:
    """Then what is left of a container is not ended, but reported."""
    record = ContainerRecord(tmp_path)  # a directory
    record.add((ONE,))
    record.retain({ONE})
    assert record.read() == frozenset()
    nothing = ContainerRecord(tmp_path / "absent")
    nothing.add(())
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("name", [ONE, f"docker-{ONE}.scope", f"libpod-{ONE}", f"cri-containerd-{ONE}.scope"])
def test_engines_name_cgroups_after_ids(name: str) -> None:
    assert id_of(name) == ONE
    assert id_of(f"{name}x") == id_of(ONE[1:]) == id_of("") == ""
