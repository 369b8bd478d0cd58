"""The node's lock: one kickwatch at a time, also after the file was removed."""

from pathlib import Path

import pytest

from kickwatch.errors import BusyError, KickwatchError
from kickwatch.node.lock import NodeLock


def test_a_lock_whose_file_was_removed_is_created_and_held_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with NodeLock(path) as lock:
        assert not lock.renew()
        path.unlink()
        assert lock.renew()
        assert not lock.renew()
        with pytest.raises(BusyError), NodeLock(path):
            pass
    with NodeLock(path):
        pass  # it was released


def test_a_lock_that_another_process_took_is_not_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with NodeLock(path) as lock:
        path.unlink()
        with NodeLock(path), pytest.raises(BusyError, match=str(path)):
            lock.renew()
        assert lock.renew()  # the other process has ended


def test_a_lock_that_cannot_be_created_again_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with NodeLock(directory / "lock") as lock:
        (directory / "lock").unlink()
        directory.rmdir()
        with pytest.raises(KickwatchError, match=r"run/lock cannot be opened \(No such file or directory\)") as caught:
            lock.renew()
        assert "systemctl restart kickwatch" in caught.value.remedy
        directory.mkdir()
        assert lock.renew()
