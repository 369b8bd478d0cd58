"""Damage to the canary by other processes, detected on plain directories instead of cgroups; its child is a fake."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kickwatch.node.cgroups import Cgroups, CgroupVersion
from kickwatch.workload.canary import Canary, _identity, _temporary


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """A canary on cgroup v2, entered."""
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


async def test_an_intact_canary_is_left_alone(canary: Canary) -> None:
    assert await canary.restore() == ""


@pytest.mark.parametrize("name", ["kickwatch-canary", "scratch"])
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_removed_directory_is_named_even_if_it_was_replaced(
    canary: Canary, tmp_path: Path, name: str, replaced: bool
) -> None:
    (tmp_path / name).rename(tmp_path / "away")  # keeps its inode number in use
    if replaced:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.subtree_control").write_text("memory\n")
    assert await canary._damage() == f"{tmp_path / name} was removed"


@pytest.mark.parametrize("directory", ["", "kickwatch-canary"])
async def test_a_disabled_memory_controller_is_named(canary: Canary, tmp_path: Path, directory: str) -> None:
    """Without it the batches would be cgroups without a memcg, and the canary would never broadcast."""
    (tmp_path / directory / "cgroup.subtree_control").write_text("cpu\n")
    assert str(tmp_path / directory / "cgroup.subtree_control") in await canary._damage()


@pytest.mark.parametrize("helper", [None, SimpleNamespace(lives=False)])
async def test_an_exited_child_is_named(canary: Canary, helper: object) -> None:
    canary._helper = helper  # type: ignore[assignment]
    assert "child" in await canary._damage()


def test_without_tmpdir_another_temporary_directory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    found = _temporary()
    assert found.is_dir()
    (tmp_path / "gone").mkdir()
    assert _temporary() == found
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert _temporary() == tmp_path / "gone"
