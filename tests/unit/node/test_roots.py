"""The host's directories come in as one value."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kickwatch.errors import ConfigError
from kickwatch.node.roots import HOST, HostRoots

PACKAGE = Path(__file__).parents[3] / "daemon" / "kickwatch"
# The journal is below every other room, and the address of its socket is part of systemd's protocol.
NAMES_A_ROOT = {"node/roots.py", "journal/native.py"}


def test_the_roots_of_a_tree_are_below_it(tmp_path: Path) -> None:
    tree = HostRoots.below(tmp_path)
    for name in ("root", "proc", "sys", "run", "etc"):
        assert getattr(tree, name) == tmp_path / getattr(HOST, name).relative_to("/")


def test_the_environment_of_a_container_names_the_hosts_proc() -> None:
    assert HostRoots.named({"KICKWATCH_HOST_PROC": "/host/proc"}) == HostRoots(proc=Path("/host/proc"))
    assert HostRoots.named({"KICKWATCH_HOST_PROC": ""}) == HostRoots.named({}) == HostRoots()


def test_a_wrong_environment_is_an_error_of_configuration_after_which_systemd_does_not_restart(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").touch()
    HostRoots().check()
    HostRoots(proc=tmp_path).check()
    with pytest.raises(ConfigError, match="KICKWATCH_HOST_PROC: /nowhere is no proc file system: set it to a mount"):
        HostRoots(proc=Path("/nowhere")).check()


@pytest.mark.parametrize("command", ["doctor", "trial", "run", "status"])
def test_every_command_refuses_it_in_one_line(command: str) -> None:
    environment = {**os.environ, "KICKWATCH_HOST_PROC": "/nowhere"}
    arguments = [sys.executable, "-m", "kickwatch", command]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("kickwatch: KICKWATCH_HOST_PROC: /nowhere is no proc file system")


def test_no_other_module_names_a_root() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r'Path\("/(proc|sys|run|etc)["/]', path.read_text(encoding="utf-8"))
    }
    assert found == NAMES_A_ROOT
