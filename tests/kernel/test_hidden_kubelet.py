"""A kubelet in a proc with hidepid: who gives up CAP_SYS_PTRACE remembers it, and who never had it does not deny it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kickwatch.node.privileges import SERVICE, LinuxCapability
from namespaces import GROUP, HIDDEN, hiding, inside, without_capabilities

pytestmark = [pytest.mark.kernel]

LOOK = "from kickwatch.workload.cri_support import find_kubelet; print(find_kubelet())"
# As the daemon: it looks, arms its probes, and looks again when it chooses an engine.
LOOK_AGAIN = f"{LOOK}; from kickwatch.node.privileges import give_up; give_up(lambda: True); print(find_kubelet())"
PREDICT = "from kickwatch.node.proc_mount import *; print(read_proc_mount(Path('/proc')).hides_from({groups}))"


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[None]:
    program = shutil.copy("/bin/sleep", tmp_path / "kubelet")
    with subprocess.Popen([program, "60"]) as process:
        yield
        process.kill()


def seen(options: str, script: str, *before: str) -> list[str]:
    command = [*inside(hiding(options)), *before, sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()


@pytest.mark.usefixtures("kubelet")
@pytest.mark.parametrize("options", HIDDEN)
def test_a_kubelet_that_hidepid_hides_is_not_taken_for_absent(options: str) -> None:
    """`auto` then drove the CRI beside it, and its pods were ended."""
    assert seen(options, LOOK_AGAIN) == ["runs", "runs"]
    assert seen(options, LOOK, *without_capabilities("sys_ptrace")) == ["hidden"]


@pytest.mark.usefixtures("kubelet")
def test_a_proc_that_hides_nothing_shows_it_to_everyone() -> None:
    assert seen("hidepid=0", LOOK, *without_capabilities("sys_ptrace")) == ["runs"]


@pytest.mark.parametrize("options", ["hidepid=0", f"hidepid=2,gid={GROUP}"])
def test_without_a_kubelet_the_capabilities_that_see_everything_show_that(options: str) -> None:
    assert seen(options, LOOK_AGAIN) == ["absent", "absent"]


@pytest.mark.parametrize("groups", [{0}, {0, GROUP}])
@pytest.mark.parametrize("options", ["hidepid=0", "hidepid=2", *HIDDEN])
def test_what_proc_hides_from_the_service_is_known_to_root(options: str, groups: set[int]) -> None:
    """doctor, as root, says what the service will see, by the groups of its unit."""
    lacks = ",".join(f"-{one.name.lower()}" for one in LinuxCapability if one not in SERVICE)
    as_service = ("setpriv", f"--groups={','.join(map(str, groups))}", f"--bounding-set={lacks}", f"--inh-caps={lacks}")
    (predicted,) = seen(options, PREDICT.format(groups=groups))
    assert seen(options, LOOK, *as_service, "--") == ["hidden" if predicted == "True" else "absent"]
