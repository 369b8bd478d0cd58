"""The directory in /run: any user may read it, and it goes with the process that made it unless something is in it."""

import os
from pathlib import Path

import pytest

from kickwatch.process.run_directory import make_run_directory, remove_run_directory


@pytest.mark.parametrize("mask", [0o077, 0o022, 0])
def test_it_has_the_same_mode_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        make_run_directory(tmp_path / "kickwatch")
    finally:
        os.umask(before)
    assert (tmp_path / "kickwatch").stat().st_mode & 0o777 == 0o755


def test_only_what_this_process_made_is_removed_and_only_when_it_is_empty(tmp_path: Path) -> None:
    made, found = tmp_path / "made", tmp_path / "found"
    found.mkdir(mode=0o700)
    for directory in (made, found):
        make_run_directory(directory)
    assert found.stat().st_mode & 0o777 == 0o700
    (made / "status.json").touch()
    for directory in (made, found):
        remove_run_directory(directory)
    assert made.exists()
    (made / "status.json").unlink()
    for directory in (made, found):
        remove_run_directory(directory)
    assert list(tmp_path.iterdir()) == [found]
    remove_run_directory(made)


def test_what_removes_it_and_makes_it_again_is_its_owner(tmp_path: Path) -> None:
    """Between two trials nothing may be left to record."""
    directory = tmp_path / "kickwatch"
    for _ in range(2):
        make_run_directory(directory)
        remove_run_directory(directory)
        assert not directory.exists()
