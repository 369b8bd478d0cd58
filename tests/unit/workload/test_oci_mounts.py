"""What a killed runc leaves mounted in the state of a container. Real mounts: tests/docker/test_engine_contract.py."""

from errno import EBUSY
from pathlib import Path
from typing import Any

import pytest

from kickwatch.workload import oci_store
from kickwatch.workload.oci_mounts import mounts_below
from kickwatch.workload.oci_store import BundleStore

STATE = Path("/run/kickwatch/oci/state/a")
MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:20 / /run rw shared:2 - tmpfs tmpfs rw
124 23 254:0 /usr/sbin/runc /run/kickwatch/oci/state/a/runc.bt0eco rw,relatime - ext4 /dev/vda rw
125 23 254:0 /usr/sbin/runc /run/kickwatch/oci/state/ab/runc.000000 rw,relatime - ext4 /dev/vda rw
126 23 254:0 /usr/sbin/runc /run/kickwatch/oci/state/a/with\\040space rw,relatime - ext4 /dev/vda rw
"""


def test_only_what_is_below_the_state_of_that_container_is_found_the_newest_first() -> None:
    assert mounts_below(MOUNTINFO, STATE) == [STATE / "with space", STATE / "runc.bt0eco"]


def test_a_state_that_cannot_be_removed_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore(tmp_path / "oci", Path("/proc"))
    tried: list[Path] = []

    def rmtree(path: Path, *_: Any, **__: Any) -> None:
        tried.append(path)
        raise OSError(EBUSY, "Device or resource busy")

    monkeypatch.setattr(oci_store.shutil, "rmtree", rmtree)
    with pytest.raises(OSError, match="busy"):
        store.remove_bundle("a")
    assert tried == [store.state / "a"] * 2
