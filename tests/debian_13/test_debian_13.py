"""kickwatch in the user land of Debian 13 (Python 3.13, libbpf 1.5): its unit tests, and a trial on this kernel.

`tests/run` runs the first beside the live tests. It takes only CPU time that nobody else wants (SCHED_IDLE).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command import DIES_WITH_US
from leftovers import leftovers
from slowness import SLOWNESS

LIMIT_S = 2400
SCRIPT = Path(__file__).with_name("user_land.py")


@pytest.mark.long
@pytest.mark.userland
@pytest.mark.timeout(LIMIT_S + 60)
def test_the_unit_tests_pass_on_debian_13() -> None:
    command = [*DIES_WITH_US, "chrt", "--idle", "0", sys.executable, str(SCRIPT), "-q"]
    # The timeouts inside are those of a machine on which everything else comes first.
    environment = {**os.environ, "KICKWATCH_TEST_SLOWNESS": str(4 * SLOWNESS)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=LIMIT_S * SLOWNESS, check=False
    )
    output = done.stdout + done.stderr
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert done.returncode == 0, output[-6000:]
    assert passed is not None, output[-6000:]
    assert int(passed[1]) > 4000, output[-6000:]


@pytest.mark.long
@pytest.mark.userland
@pytest.mark.docker
@pytest.mark.kernel
@pytest.mark.timeout(900)
def test_a_trial_on_debian_13_has_a_verdict() -> None:
    """With this machine's engine, through its socket: what `make run` does once it has built everything."""
    before = leftovers()
    trial = ("python", "-m", "kickwatch", "trial", "--until-decided", "--json")
    command = [*DIES_WITH_US, sys.executable, str(SCRIPT), "live", *trial]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["verdict"], result["kmem_accounting"]) == ("quiet", "on")
    assert result["containers"] >= 23
    after = leftovers()
    assert (after["containers"], after["cgroups"]) == (before["containers"], before["cgroups"])
    assert set(after["images"]) <= set(before["images"])  # fewer, if an earlier kickwatch was killed and left one
