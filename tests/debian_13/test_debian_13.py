"""kickwatch in the user land of Debian 13 (Python 3.13): its unit tests, `make setup`, and a trial on this kernel.

`tests/run` runs the first two beside the live tests. They take only CPU time that nobody else wants (SCHED_IDLE).
Unit tests that fail are run once again, at normal priority: what Debian 13 is not compatible with fails twice.
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
AGAIN_S = 300
MOST_AGAIN = 5
# A line of pytest's short summary, with a test's id. After a module that cannot be imported, none has passed.
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/[^\[\s]+(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)
SCRIPT = Path(__file__).with_name("user_land.py")
PROBES = Path(__file__).parents[2] / "daemon/kickwatch/observe/probes"


@pytest.mark.long
@pytest.mark.userland
@pytest.mark.timeout(LIMIT_S + AGAIN_S + 60)
def test_the_unit_tests_pass_on_debian_13(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, of which up to MOST_AGAIN may have missed a slice of time: the second time they must pass."""
    done = unit_tests("-rfE", prefix=("chrt", "--idle", "0"), timeout_s=LIMIT_S)
    output = done.stdout + done.stderr
    passed = re.findall(r"^(?:\d+ failed, )?(\d+) passed", done.stdout, re.MULTILINE)
    assert passed != [], output[-6000:]
    assert int(passed[-1]) > 4000, output[-6000:]
    if done.returncode == 0:
        return
    failed = sorted(set(FAILED.findall(done.stdout)))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, output[-6000:]
    assert 0 < len(failed) <= MOST_AGAIN, output[-6000:]
    with capsys.disabled():
        print("\nfailed, and run once again at normal priority:", *failed, sep="\n")  # noqa: T201 -- shown where it passes
    again = unit_tests(*failed, timeout_s=AGAIN_S)
    assert again.returncode == 0, again.stdout[-6000:] + again.stderr[-6000:]


def unit_tests(*arguments: str, prefix: tuple[str, ...] = (), timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run them with arguments of pytest, below a command. The timeouts inside are those of a machine that is busy."""
    command = [*DIES_WITH_US, *prefix, sys.executable, str(SCRIPT), "-q", *arguments]
    environment = {**os.environ, "KICKWATCH_TEST_SLOWNESS": str(4 * SLOWNESS)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout_s * SLOWNESS, check=False
    )


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
