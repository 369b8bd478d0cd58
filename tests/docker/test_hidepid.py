"""/proc with hidepid: the daemon, without CAP_SYS_PTRACE, runs its containers there; what it cannot see is named."""

from pathlib import Path

import pytest

from namespaces import HIDDEN, hiding, inside
from node_daemon import NodeDaemon

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(120)]


@pytest.mark.parametrize("options", HIDDEN)
def test_proc_with_hidepid_hides_no_container_of_ours(tmp_path: Path, options: str) -> None:
    """Each container cost 20 s and failed. Now they live as long as elsewhere."""
    with NodeDaemon(tmp_path, prefix=inside(hiding(options))) as daemon:
        finished = daemon.wait("trial_finished")
        assert (finished["containers"], finished["failed"]) == (2, 0)
        assert daemon.events("trial_failed") == []
        assert finished["kmem_accounting"] == "on"
