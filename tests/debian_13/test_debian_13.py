"""kickwatch in the user land of Debian 13 (Python 3.13): its unit tests, `make setup`, and a trial on this kernel.

`tests/run` runs the first two beside the live tests. They take only CPU time that nobody else wants (SCHED_IDLE).
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
from on_request import FRESH_DEBIAN_13
from slowness import SLOWNESS

LIMIT_S = 2400
SCRIPT = Path(__file__).with_name("user_land.py")
PROBES = Path(__file__).parents[2] / "daemon/kickwatch/observe/probes"


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
@pytest.mark.timeout(LIMIT_S + 60)
def test_make_setup_brings_all_that_is_missing_on_a_fresh_debian_13() -> None:
    """With apt, from a clone, where only make and python3 are. The second time nothing is left to do."""
    setup = "make setup && echo again && make setup && .venv/bin/kickwatch --version && command -v dockerd"
    inside = ("bare", "sh", "-c", f"exec 2>&1; {setup}")
    command = [*DIES_WITH_US, "chrt", "--idle", "0", sys.executable, str(SCRIPT), *inside]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S * SLOWNESS, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    first, _, again = done.stdout.partition("again\n")
    for line in ("packages: installing python3-venv ca-certificates gcc", "engine: docker.io installed"):
        assert line in first, output[-6000:]
    assert first.count("native: compiling") == len(list(PROBES.glob("*.bpf.c")))
    for line in ("packages: all present", "python: .venv is up to date", "will be started when needed"):
        assert line in again, output[-6000:]
    assert "compiling" not in again
    assert "installing" not in again


@FRESH_DEBIAN_13
@pytest.mark.long
@pytest.mark.userland
@pytest.mark.kernel
@pytest.mark.timeout(1200)
def test_make_run_decides_on_a_fresh_debian_13() -> None:
    """From a clone, where only make and python3 are, with Debian 13's Docker; no other engine may run meanwhile."""
    command = [*DIES_WITH_US, sys.executable, str(SCRIPT), "bare", "make", "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    assert re.search(r"^verdict: quiet", done.stdout, re.MULTILINE), output[-6000:]


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
