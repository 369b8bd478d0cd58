"""Whose containers a proc with hidepid hides from the service: those in a user namespace that another user owns."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kickwatch.node.privileges import SERVICE, LinuxCapability
from namespaces import HIDDEN, hiding, inside

pytestmark = [pytest.mark.kernel]

ROOT, OTHER = 0, 64322
# As runc does it: the runtime, run by the engine's user, makes the user namespace, whose root the program then is.
CONTAINER = """
import ctypes, os, sys
owner = int(sys.argv[1])
os.setgroups([])
os.setresgid(owner, owner, owner)
os.setresuid(owner, owner, owner)
if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER
    sys.exit(1)
print("made", flush=True)
sys.stdin.readline()
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.execv("/bin/sleep", ["sleep", "60"])
"""
LOOK = "from kickwatch.node.proc_mount import *; print(hidden(p := Path('/proc'), {pid}, read_proc_mount(p)))"


@contextmanager
def container(owner: int) -> Iterator[int]:
    """The pid of a process in a user namespace of `owner`, as another user of the node."""
    command = [sys.executable, "-c", CONTAINER, str(owner)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if not process.stdout.readline():
                pytest.skip("feature: this user can make no user namespace")
            proc = Path(f"/proc/{process.pid}")
            for kind in ("uid_map", "gid_map"):
                (proc / kind).write_text("0 100000 65536", encoding="ascii")
            process.stdin.write("\n")
            process.stdin.flush()
            while (proc / "comm").read_text(encoding="ascii") != "sleep\n":
                assert process.poll() is None
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def hidden_from_service(pid: int, options: str) -> bool:
    """Whether a process with the service's capabilities, and the group root alone, does not see `pid`."""
    lacks = ",".join(f"-{one.name.lower()}" for one in LinuxCapability if one not in SERVICE)
    as_service = ("setpriv", "--groups=0", f"--bounding-set={lacks}", f"--inh-caps={lacks}", "--")
    command = [*inside(hiding(options)), *as_service, sys.executable, "-c", LOOK.format(pid=pid)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip() == "True"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", HIDDEN)
def test_a_container_of_a_rootless_engine_is_hidden(options: str) -> None:
    with container(OTHER) as pid:
        assert hidden_from_service(pid, options)
        assert not hidden_from_service(pid, "hidepid=0")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", HIDDEN)
def test_a_container_of_an_engine_of_root_that_remaps_users_is_not(options: str) -> None:
    """The owner of a user namespace has every capability in it (user_namespaces(7)). We took it for hidden."""
    with container(ROOT) as pid:
        assert not hidden_from_service(pid, options)
