"""200 healthy containers on ordinary nodes: no alert, and `quiet` once it is earned. With KICKWATCH_200_HEALTHY=1.

Minutes for each node. Other kernels, and lockdown, have theirs in the laboratory.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command import DIES_WITH_US, kickwatch
from leftovers import leftovers
from namespaces import HIDDEN, hiding, inside
from node_daemon import NodeDaemon
from on_request import HEALTHY_200

pytestmark = [HEALTHY_200, pytest.mark.long, pytest.mark.docker, pytest.mark.kernel, pytest.mark.timeout(1800)]

USER_LAND = Path(__file__).parents[1] / "debian_13/user_land.py"
TRIAL = ("trial", "--containers", "200", "--json")


def check(status: int, output: str) -> None:
    """The result of TRIAL."""
    result = json.loads(output)
    assert (status, result["verdict"], result["findings"]) == (0, "quiet", []), (result["reasons"], result["findings"])
    assert (result["containers"], result["failures"]) == (200, [])


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_of_a_trial_on_this_node(kind: str) -> None:
    before = leftovers()
    done = kickwatch(*TRIAL, "--set", f"engine.kind={kind}", timeout_s=1700)
    check(done.status, done.out)
    assert leftovers() == before


@pytest.mark.userland
def test_of_a_trial_in_debian_13() -> None:
    """Its Python, and this machine's engine, through its socket."""
    command = [*DIES_WITH_US, sys.executable, str(USER_LAND), "live", "python", "-m", "kickwatch", *TRIAL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    check(done.returncode, done.stdout)


@pytest.mark.parametrize("options", HIDDEN)
def test_of_a_daemon_where_proc_hides_processes(tmp_path: Path, options: str) -> None:
    """It cannot see what its containers run as. Pairs and whole windows, as it is shipped."""
    settings = {"workload.containers_per_trial": 25, "trial.design": "mixed", "trial.canary_memcgs": 100}
    with NodeDaemon(tmp_path, settings, prefix=inside(hiding(options)), trials=8) as daemon:
        daemon.until(lambda: len(daemon.events("trial_finished")) == 8, "eight trials", 1700)
        finished = daemon.events("trial_finished")
        assert [one["containers"] for one in finished] == [25] * 8
        assert [one for one in daemon.records if one["event"].endswith("_detected")] == []
        assert finished[-1]["verdict"] == "quiet"
        assert daemon.events("trial_void") == []
