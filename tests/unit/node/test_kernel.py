"""Facts about the kernel."""

from pathlib import Path

import pytest

from kickwatch.node.kernel import rcu_expedited


def test_expedited_grace_periods_are_read(tmp_path: Path) -> None:
    assert not rcu_expedited(tmp_path)  # no such file on this kernel
    (tmp_path / "kernel").mkdir()
    for text, expedited in (("0\n", False), ("1\n", True)):
        (tmp_path / "kernel/rcu_expedited").write_text(text)
        assert rcu_expedited(tmp_path) is expedited


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kernel/rcu_expedited").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        rcu_expedited(tmp_path)
