"""What of the canary others have removed, found on directories that stand in for cgroups; its child is a fake."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.canary import Canary, _identity, _temporary


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """On cgroup v2, set up."""
    group, scratch = tmp_path / "kickwatch-canary", tmp_path / "scratch"
    for directory in (group, scratch):
        directory.mkdir()
    for directory in (tmp_path, group):
        (directory / "cgroup.subtree_control").write_text("cpu memory\n")
    canary = Canary(Cgroups(CgroupVersion.V2, tmp_path, "/", (tmp_path,), Path("/proc")))
    canary._helper = SimpleNamespace(lives=True)  # type: ignore[assignment]
    canary._open_dirs = {directory: _identity(directory) for directory in (group, scratch)}
    canary._delegating = (tmp_path, group)
    return canary


async def test_nothing_is_gone(canary: Canary) -> None:
    assert await canary.restore() == ""


@pytest.mark.parametrize("name", ["kickwatch-canary", "scratch"])
@pytest.mark.parametrize("again", [True, False])
async def test_a_directory_that_was_removed_is_named_also_where_another_has_its_name(
    canary: Canary, tmp_path: Path, name: str, again: bool
) -> None:
    (tmp_path / name).rename(tmp_path / "away")  # so that its number is not given to the next one
    if again:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.subtree_control").write_text("memory\n")
    assert await canary._damage() == f"{tmp_path / name} was removed"


@pytest.mark.parametrize("of", ["", "kickwatch-canary"])
async def test_a_memory_controller_that_was_switched_off_is_named(canary: Canary, tmp_path: Path, of: str) -> None:
    """Its batches would be cgroups without a memcg: silent whatever the kernel does."""
    (tmp_path / of / "cgroup.subtree_control").write_text("cpu\n")
    assert str(tmp_path / of / "cgroup.subtree_control") in await canary._damage()


@pytest.mark.parametrize("helper", [None, SimpleNamespace(lives=False)])
async def test_a_child_that_has_ended_is_named(canary: Canary, helper: object) -> None:
    canary._helper = helper  # type: ignore[assignment]
    assert "child" in await canary._damage()


def test_where_tmpdir_was_removed_another_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    found = _temporary()
    assert found.is_dir()
    (tmp_path / "gone").mkdir()
    assert _temporary() == found
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert _temporary() == tmp_path / "gone"
