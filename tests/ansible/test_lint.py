"""The role and the playbook against ansible-lint's rules, without a network. Each exception says why in the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2] / "deploy/ansible"
PROGRAMS = Path(sys.executable).parent


@pytest.mark.long
def test_ansible_lint_finds_nothing(tmp_path: Path) -> None:
    environment = os.environ | {
        "ANSIBLE_HOME": str(tmp_path), "NO_COLOR": "1", "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
    }  # fmt: skip
    command = [PROGRAMS / "ansible-lint", "--offline", "-q", "--format=pep8"]
    found = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr
